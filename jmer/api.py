"""The Python API: train, load and use runs in a few lines."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jmer.command import show
from jmer.data import load_corpus, make_corpus
from jmer.data.corpus import Conversation, Corpus
from jmer.data.folds import configured_fold
from jmer.data.validation import validate_corpus
from jmer.errors import UserError
from jmer.evaluation.report import REPORT_FILE
from jmer.experiment import get_config
from jmer.files import local_path
from jmer.runs.cross_validation import CrossValidation, cross_validate, is_cross_validation, load_cross_validation
from jmer.runs.directory import seed_folders
from jmer.runs.group import RunGroup, group_runs
from jmer.runs.resume import CHANGEABLE
from jmer.runs.run import Run, load_single_run
from jmer.runs.training import seed_runs, train_runs
from jmer.training.agreement import agreeing

AnyCorpus = Corpus | str | Path | Mapping[str, Sequence[Conversation]]


def train(
    config: ConfigDict | str | Path,
    corpus: AnyCorpus | None = None,
    workdir: str | Path | None = None,
    *,
    log: Callable[[str], None] | None = show,
    command: Callable[[ConfigDict, Path], str] | None = None,
    experiment: str | None = None,
    change_on_resume: Collection[str] = (),
) -> Run | RunGroup | CrossValidation:
    """Trains a model on a corpus, evaluates it and writes its report; resumes what was stopped.

    A finished run is loaded. Works in any thread; in the main thread Ctrl-C, SIGTERM and what schedulers send before a
    limit of time (SIGUSR1, SIGUSR2, SIGXCPU) save the run and raise `jmer.Interrupted`.

    Args:
      config: an experiment's name or path, with variants after a colon (`lfvd_iemocap:tiny`), a registered model's
        name, or a configuration (`jmer.get_config`).
      corpus: a corpus, its name or folder, or split -> conversations without labels to name; None = the configuration's
        `data.path`.
      workdir: the run's directory, made if it is not there; None = a folder of `runs/` named after the configuration
        and the corpus.
      log: prints a line; None = silent.
      command: `command(config, workdir)` returns the command line of a run, for its record; None = that of the process.
      experiment: the name or path that the configuration was made from, for the record; None = `config` if that is one.
      change_on_resume: fields that a run which is resumed takes from `config` from its next step on, whatever it had
        before, among `optimizer.learning_rate`, `optimizer.weight_decay` and `training.patience`; its report says so.

    Returns:
      The run; with `config.seeds` > 1 the runs of all seeds, trained in one program; with `config.data.folds` the runs
      of all folds and seeds.

    Raises:
      UserError: in one line, if the configuration, the corpus or the directory is refused, or a loss is not finite.
      jmer.Interrupted: after a signal that asks the process to end, when everything is saved.

    Example:
      >>> import jmer
      >>> run = jmer.train("lfvd_iemocap:tiny", "synthetic-iemocap6", "runs/a")  # doctest: +SKIP
      >>> run.predict("synthetic-iemocap6", split="test")  # doctest: +SKIP
    """
    log, changing = log or _silent, _changing(change_on_resume, workdir)
    source = experiment or ("" if isinstance(config, ConfigDict) else str(config))
    with agreeing():
        config = config if isinstance(config, ConfigDict) else get_config(config)
        made = _corpus(corpus, config)
    config = config.copy_and_resolve_references()
    config.data.path = made.source
    folder = default_workdir(config, source, made) if workdir is None else local_path(workdir)
    recorded = _recorded(source)
    if config.data.folds and not config.data.fold:
        if changing:
            raise UserError("runs are changed on resume fold by fold: name one with data.fold and its workdir")
        validated = cross_validate(config, made, folder, command=command, experiment=recorded, log=log)
        _log_report(validated.write_report(), f"all {len(validated.folds)} folds are finished; their report", log)
        return validated
    configs, folders = seed_runs(config, folder) if config.seeds > 1 else ([config], [folder])
    commands = None if command is None else [command(*pair) for pair in zip(configs, folders, strict=True)]
    options: dict[str, Any] = {"commands": commands, "experiment": recorded, "change_on_resume": changing}
    trained = train_runs(configs, made, folders, **options, log=log)
    if config.seeds == 1:
        if not trained:
            _log_report(folder / REPORT_FILE, "this run is finished; its report", log)
        return load_single_run(folder)
    group = group_runs([load_single_run(own) for own in folders], folder)
    _log_report(group.write_report(), f"all {config.seeds} runs are finished; their report", log)
    return group


def train_many(
    configs: Sequence[ConfigDict],
    corpus: AnyCorpus,
    workdirs: Sequence[str | Path],
    *,
    log: Callable[[str], None] | None = show,
    commands: Sequence[str] | None = None,
    experiment: str = "",
) -> list[Run]:
    """Trains runs in one program that differ by seed, weights of loss terms, learning rate and weight decay alone.

    Args:
      configs: of the runs (`jmer.get_config`), with one seed each.
      corpus: see `train`.
      workdirs: the runs' directories, made if they are not there.
      log: prints a line; None = silent.
      commands: the command line of each run, for its record; None = that of the process.
      experiment: the name or path of the experiment, for the record; the file may register the model.

    Raises:
      UserError, jmer.Interrupted: see `train`. UserError also if the configurations differ by more, or do not have a
        directory each.
    """
    _check_many(configs, workdirs)
    made, folders = _corpus(corpus, configs[0]), [local_path(workdir) for workdir in workdirs]
    own = []
    for config in configs:
        own.append(config.copy_and_resolve_references())
        own[-1].data.path = made.source
    train_runs(own, made, folders, commands=commands, experiment=_recorded(experiment), log=log or _silent)
    return [load_single_run(folder) for folder in folders]


def load_run(folder: str | Path) -> Run | RunGroup | CrossValidation:
    """Reads a trained run, or the runs of several seeds or folds.

    Args:
      folder: a run's directory, or the one that holds the runs of several seeds or folds.

    Raises:
      UserError: if there is no run, it has no finished epoch yet, or its model is not registered.
    """
    folder = local_path(folder)
    if is_cross_validation(folder):
        return load_cross_validation(folder)
    folders = seed_folders(folder)
    if not folders:
        return load_single_run(folder)
    return group_runs([load_single_run(own) for own in folders], folder)


def default_workdir(config: ConfigDict, source: str, corpus: Corpus) -> Path:
    """Returns a directory named after an experiment: another configuration or corpus has another one.

    The same ones have the same, wherever the corpus lies.
    """
    own = config.copy_and_resolve_references()
    own.data.path = corpus.identity.fingerprint
    values = own.to_json_best_effort(sort_keys=True)
    name = Path(source.partition(":")[0]).stem or config.model.name
    return Path("runs") / f"{name}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"


def _corpus(corpus: AnyCorpus | None, config: ConfigDict) -> Corpus:
    """Returns the corpus, or the fold of it, that a configuration trains on."""
    if corpus is None:
        corpus = config.data.path
    if isinstance(corpus, str | Path):
        corpus = load_corpus(corpus)
    elif isinstance(corpus, Mapping):
        corpus = make_corpus(corpus)
    elif not isinstance(corpus, Corpus):
        raise UserError(
            f"corpus is of type {type(corpus).__name__}: give a name, a folder, a corpus (jmer.data.make_corpus) or "
            "None"
        )
    validate_corpus(corpus, for_training=not config.data.folds)
    if not config.data.fold:
        return corpus
    fold = configured_fold(corpus, config.data)
    validate_corpus(fold, for_training=True)
    return fold


def _check_many(configs: Sequence[ConfigDict], workdirs: Sequence[str | Path]) -> None:
    if not configs:
        raise UserError("no configurations: give train_many one for each run")
    if len(workdirs) != len(configs):
        raise UserError(f"{len(configs)} configurations, but {len(workdirs)} workdirs: give one for each run")
    if len({Path(workdir).resolve() for workdir in workdirs}) < len(workdirs):
        raise UserError("workdirs names a directory twice: give each run its own")
    for config in configs:
        if config.seeds != 1:
            raise UserError(f"seeds is {config.seeds}: give train_many a configuration with seeds=1 for each seed")


def _changing(fields: Collection[str], workdir: str | Path | None) -> tuple[str, ...]:
    """Returns the fields that a run may change when it is resumed. Raises UserError if they cannot be changed so."""
    if not isinstance(fields, Collection):
        raise UserError(f"change_on_resume is of type {type(fields).__name__}: give the names of fields")
    found = (fields,) if isinstance(fields, str) else tuple(fields)
    for field in found:
        if field not in CHANGEABLE:
            raise UserError(
                f"{field} cannot be changed on resume, only {', '.join(CHANGEABLE)}: choose another workdir"
            )
    if found and workdir is None:
        raise UserError("a run that is changed on resume must be named: give its workdir")
    return found


def _recorded(source: str) -> str:
    """Returns an experiment as a run records it: its name, or the path of its file."""
    name = source.partition(":")[0]
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _log_report(report: Path, what: str, log: Callable[[str], None]) -> None:
    log(f"{what}, {report}:\n\n{report.read_text(encoding='utf-8')}")


def _silent(line: str) -> None:
    pass


__all__ = ["default_workdir", "load_run", "train", "train_many"]
