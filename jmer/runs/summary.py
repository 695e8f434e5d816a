"""One configuration with several seeds: a folder of runs that are trained together, and what their scores come to."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jmer.data.corpus import Corpus
from jmer.errors import UserError
from jmer.evaluation.report import REPORT_FILE
from jmer.evaluation.seed_report import seed_report
from jmer.files import atomically
from jmer.training.folder import (
    COMPUTATION,
    SCORES_FILE,
    SEED_FOLDER,
    check_parent,
    check_same,
    read_config,
    read_facts,
    read_json,
)
from jmer.training.loop import check
from jmer.training.together import train_together


def train_seeds(
    config: ConfigDict,
    corpus: Corpus,
    workdir: Path,
    *,
    command: Callable[[int, Path], str],
    say: Callable[[str], None],
) -> list[Path]:
    """Trains one run per seed, all together, see `jmer.training.together`.

    Args:
      config: an experiment's configuration; its seeds are `seed`, `seed` + 1 and so on, `seeds` of them.
      corpus: with a training split.
      workdir: parent of the runs' folders; made if it is not there.
      command: `command(seed, folder)` gives the command line that would make one of the runs alone.
      say: prints a line.

    Returns:
      The runs' folders.

    Raises:
      UserError, Interrupted: as `train_together` does; UserError also if `workdir` holds anything else.
    """
    check(config, corpus)
    check_parent(workdir)
    configs = []
    for seed in range(config.seed, config.seed + config.seeds):
        single = config.copy_and_resolve_references()
        single.update(seed=seed, seeds=1)
        configs.append(single)
    folders = [workdir / f"{SEED_FOLDER}{single.seed}" for single in configs]
    commands = [command(single.seed, folder) for single, folder in zip(configs, folders, strict=True)]
    train_together(configs, corpus, folders, commands=commands, say=say)
    return folders


def report_seeds(workdir: Path, folders: Sequence[Path]) -> Path:
    """Writes the report of several seeds into the folder that holds their runs, and returns its path."""
    path = workdir / REPORT_FILE
    with atomically(path) as temporary:
        temporary.write_text(summarize(folders) + "\n", encoding="utf-8")
    return path


def summarize(folders: Sequence[Path]) -> str:
    """Returns a Markdown table with a row per split and score: mean, sample deviation and every run's value.

    Args:
      folders: of runs that differ by their seed alone.

    Raises:
      UserError: if a folder has no scores yet, the runs' configurations differ by more than the seed, or two are one.
    """
    configs = [read_config(folder) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        check_same(folder, config, configs[0], ignore=("seed", *COMPUTATION))
    seeds = [config.seed for config in configs]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds {', '.join(map(str, seeds))} are not all different: name each run once")
    runs = dict(zip(seeds, map(_scores, folders), strict=True))
    first = runs[seeds[0]]
    return seed_report(
        {seed: run["splits"] for seed, run in runs.items()},
        None,
        title=f"{configs[0].model.name.upper()} on {first['corpus']}",
        selection=first["selection"],
        epochs={seed: run["epoch"] for seed, run in runs.items()},
        synthetic=read_facts(folders[0]).card.synthetic,
    )


def _scores(folder: Path) -> dict:
    path = folder / SCORES_FILE
    if not path.exists():
        raise UserError(f"{folder} has no {SCORES_FILE}: let its run finish, or use --mode evaluate on it")
    return read_json(path)
