"""Cross-validation: a run per fold and seed, and their scores over folds and pooled."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from ml_collections import ConfigDict

from jmer.config import check_config
from jmer.data.corpus import Corpus
from jmer.data.folds import configured_fold, make_folds
from jmer.data.validation import validate_corpus
from jmer.errors import UserError
from jmer.evaluation.fold_report import fold_report, fold_table
from jmer.evaluation.metrics import Scores
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.report import REPORT_FILE
from jmer.evaluation.table_scores import scores_of_tables
from jmer.runs.directory import check_files, damaged, read_as, seed_folders, write_json
from jmer.runs.group import RunGroup, Summarized, group_runs
from jmer.runs.predictions import read_split
from jmer.runs.run import Run, load_single_run
from jmer.runs.training import seed_runs, train_runs
from jmer.training.parallel import is_main_process

PLAN_FILE = "cross_validation.json"
FOLD_FOLDER = "fold_"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `PLAN_FILE` holds.

    Attributes:
      rule: that made the folds.
      folds: name of a fold -> name of its directory.
    """

    rule: str
    folds: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class CrossValidation(Summarized):
    """The runs of all folds of a corpus.

    Attributes:
      folder: the directory that holds theirs; None = they lie in several places.
      folds: name of a fold -> its runs, in the order of their seeds, the same for each fold.
    """

    folder: Path | None
    folds: Mapping[str, RunGroup]

    def __iter__(self) -> Iterator[Run]:
        return (run for runs in self.folds.values() for run in runs)

    def __len__(self) -> int:
        return sum(map(len, self.folds.values()))

    @property
    def fold_scores(self) -> dict[str, dict[int, Scores]]:
        """Name of a fold -> seed -> scores of its test split. Raises UserError if a run has none."""
        return {name: {run.seed: _test_scores(run) for run in runs} for name, runs in self.folds.items()}

    @property
    def pooled_predictions(self) -> dict[int, pd.DataFrame]:
        """Seed -> predictions of the test splits of all folds, as they were written. Raises UserError if one lacks."""
        tables: dict[int, list[pd.DataFrame]] = {}
        for run in self:
            tables.setdefault(run.seed, []).append(read_split(run.folder, "test"))
        return {seed: pd.concat(of_folds, ignore_index=True) for seed, of_folds in tables.items()}

    @property
    def pooled_scores(self) -> dict[int, Scores]:
        """Seed -> scores of `pooled_predictions`."""
        first = next(iter(self))
        emotions, majority = first.card.emotions, _test_scores(first).majority_emotion
        margin = first.config.attributes.margin
        return {
            seed: scores_of_tables([table], emotions, majority, margin)
            for seed, table in self.pooled_predictions.items()
        }

    def summary(self) -> pd.DataFrame:
        """Returns the test scores as fractions, see `jmer.evaluation.fold_report.fold_table`.

        Raises:
          UserError: if a run was not evaluated.
        """
        return fold_table(self.fold_scores, self.pooled_scores)

    def report(self) -> str:
        """Returns the summary as a report in Markdown. Raises UserError if a run was not evaluated."""
        first = next(iter(self))
        return fold_report(
            self.fold_scores,
            self.pooled_scores,
            title=f"{first.config.model.name.upper()} on {corpus_title(first.card)}",
            rule=first.config.data.folds,
            selection=first.selection,
            epochs={name: {run.seed: run.epoch for run in runs} for name, runs in self.folds.items()},
            synthetic=first.card.synthetic,
        )


def cross_validate(
    config: ConfigDict,
    corpus: Corpus,
    workdir: Path,
    *,
    command: Callable[[ConfigDict, Path], str] | None = None,
    experiment: str = "",
    log: Callable[[str], None],
) -> CrossValidation:
    """Trains, evaluates and reports the runs of all folds and seeds; the seeds of a fold in one program.

    Args:
      config: `data.folds` says which folds.
      corpus: that is divided; its splits do not matter.
      workdir: parent of the folds' directories, made if it is not there.
      command: `command(config, workdir)` returns the command line that trains one run; None = that of the process.
      experiment: path of the experiment's file, for the record.
      log: prints a line.

    Raises:
      UserError, jmer.Interrupted: as `jmer.runs.train_runs` does. Before anything is written also if the directory
        holds other folds, or a fold cannot be trained.
    """
    names = [fold.name for fold in make_folds(corpus, config.data.folds, by=config.data.holdout_by)]
    configs = {name: _of_fold(config, name) for name in names}
    for name, own in configs.items():
        try:
            made = configured_fold(corpus, own.data)
            validate_corpus(made, for_training=True)
            check_config(own, made)
        except UserError as error:
            raise UserError(f"fold {name}: {error}") from error
    folders = claim_folds(workdir, config.data.folds, names)
    for number, (name, own) in enumerate(configs.items(), 1):
        made, folder = configured_fold(corpus, own.data), folders[name]
        log(f"fold {name}, {number} of {len(names)}: {folder}")
        singles, own_folders = seed_runs(own, folder) if own.seeds > 1 else ([own], [folder])
        commands = None if command is None else [command(*pair) for pair in zip(singles, own_folders, strict=True)]
        train_runs(singles, made, own_folders, commands=commands, experiment=experiment, log=log)
    return load_cross_validation(workdir)


def claim_folds(workdir: Path, rule: str, names: Sequence[str]) -> dict[str, Path]:
    """Records which folds a directory holds, or finds the same ones.

    Args:
      workdir: parent of the folds' directories, made if it is not there.
      rule: that made the folds.
      names: of the folds.

    Returns:
      Name of a fold -> its directory.

    Raises:
      UserError: if the directory holds other folds or anything else.
    """
    plan = Plan(rule, _folder_names(names))
    if is_cross_validation(workdir):
        there = _read_plan(workdir)
        if there != plan:
            raise UserError(
                f"{workdir} holds other folds: {there.rule} with {', '.join(there.folds)}, not {rule} with "
                f"{', '.join(names)}; choose another workdir"
            )
    else:
        if workdir.exists():
            check_files(workdir, own=re.escape(REPORT_FILE))
        if is_main_process():
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(workdir / PLAN_FILE, dataclasses.asdict(plan))
    return {name: workdir / folder for name, folder in plan.folds.items()}


def is_cross_validation(folder: Path) -> bool:
    """Returns whether a directory holds the runs of folds."""
    return (folder / PLAN_FILE).exists()


def run_folders(workdir: Path) -> list[Path]:
    """Returns the directories of the runs in a directory: itself, or those of several seeds or folds.

    Raises:
      UserError: if a fold is not there yet.
    """
    folders = _trained_folds(workdir).values() if is_cross_validation(workdir) else [workdir]
    return [own for folder in folders for own in seed_folders(folder) or [folder]]


def load_cross_validation(workdir: Path) -> CrossValidation:
    """Loads the runs of all folds.

    Raises:
      UserError: if a fold is not finished, or its runs do not belong together.
    """
    folds = {}
    for name, folder in _trained_folds(workdir).items():
        runs = [load_single_run(own) for own in seed_folders(folder) or [folder]]
        folds[name] = group_runs(runs, folder if len(runs) > 1 else None)
    return CrossValidation(workdir, folds)


def _trained_folds(workdir: Path) -> dict[str, Path]:
    """Returns name of a fold -> its directory. Raises UserError if one is not there yet."""
    folders = {name: workdir / folder for name, folder in _read_plan(workdir).folds.items()}
    trained = sum(folder.exists() for folder in folders.values())
    if trained < len(folders):
        raise UserError(f"{workdir} has {trained} of {len(folders)} folds: resume its training")
    return folders


def _read_plan(workdir: Path) -> Plan:
    path = workdir / PLAN_FILE
    plan = read_as(Plan, path)
    for name, folder in plan.folds.items():
        if not re.fullmatch(rf"{FOLD_FOLDER}[A-Za-z0-9_-]+", folder):
            raise damaged(path, ValueError(f"folds.{name} is {folder!r}: expected the name of a folder of a fold"))
    if not plan.folds:
        raise damaged(path, ValueError("folds is empty"))
    return plan


def _test_scores(run: Run) -> Scores:
    if "test" not in run.scores:
        raise UserError(f"{run.folder} has no scores of a test split: evaluate it again")
    return run.scores["test"]


def _of_fold(config: ConfigDict, name: str) -> ConfigDict:
    own = config.copy_and_resolve_references()
    own.data.fold = name
    return own


def _folder_names(names: Sequence[str]) -> dict[str, str]:
    """Returns name of a fold -> name of its directory, which has letters, digits, - and _ alone."""
    folders: dict[str, str] = {}
    for position, name in enumerate(names, 1):
        plain = FOLD_FOLDER + re.sub(r"[^A-Za-z0-9-]+", "_", name)
        # Names may differ in other characters, or in case alone, which some file systems ignore.
        taken = {folder.lower() for folder in folders.values()}
        folders[name] = plain if plain.lower() not in taken else f"{plain}_{position}"
    return folders
