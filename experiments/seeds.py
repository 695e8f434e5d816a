"""Mean and deviation over runs that differ by their seed: `python -m experiments.seeds runs/a runs/b runs/c`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jmer.command import Parser, exit_status
from jmer.errors import UserError
from jmer.evaluation import mean_and_deviation
from jmer.evaluation.report import SELECTIONS
from jmer.training.folder import COMPUTATION, SCORES_FILE, check_same, read_config, read_json

SCORES = ("accuracy", "weighted_f1", "macro_f1", "unweighted_accuracy")


def summarize(folders: Sequence[Path]) -> str:
    """Returns a table with a row per split and score: every run's value, mean and sample deviation, in percent.

    Raises:
      UserError: if a folder has no scores yet, the runs' configurations differ by more than the seed, or two are one.
    """
    configs = [read_config(folder) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        check_same(folder, config, configs[0], ignore=("seed", *COMPUTATION))
    seeds = [config.seed for config in configs]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds {', '.join(map(str, seeds))} are not all different: name each run once")
    runs = [_scores(folder) for folder in folders]
    selection = SELECTIONS[runs[0]["selection"]]
    lines = [
        f"{configs[0].model.name.upper()} on {runs[0]['corpus']}, {len(runs)} seeds ({', '.join(map(str, seeds))})",
        f"epochs {', '.join(str(run['epoch']) for run in runs)}: {selection}",
    ]
    for split in runs[0]["splits"]:
        for name in SCORES:
            values = [100 * run["splits"][split][name] for run in runs]
            mean, deviation = mean_and_deviation(values)
            each = " ".join(f"{value:6.2f}" for value in values)
            lines.append(
                f"{split:10} {name.replace('_f1', ' F1').replace('_', ' '):20} {mean:6.2f} ± {deviation:5.2f}   {each}"
            )
    return "\n".join(lines)


def _scores(folder: Path) -> dict:
    path = folder / SCORES_FILE
    if not path.exists():
        raise UserError(f"{folder} has no {SCORES_FILE}: let its run finish, or use --mode evaluate on it")
    return read_json(path)


def main(arguments: Sequence[str]) -> None:
    """Prints the table for the folders on the command line."""
    parser = Parser(prog="python -m experiments.seeds", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a run's folder (--workdir)")
    print(summarize(parser.parse_args(arguments).folders))


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
