"""What a run's directory can be used for: which requests are met when a run is resumed or used, and which refused."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from jmer.config import flatten
from jmer.data.identity import Identity, difference
from jmer.errors import UserError
from jmer.runs.directory import (
    CONFIG_FILE,
    RUN_FILE,
    Change,
    RunFacts,
    check_free,
    check_unused,
    lock,
    read_config,
    read_facts,
    write_json,
)
from jmer.selection import MICRO_F1
from jmer.training.active_run import CHECKPOINT_FOLDER
from jmer.training.checkpointing import newest_progress
from jmer.training.early_stopping import is_finished
from jmer.training.optimizer import OF_ALL_STEPS
from jmer.training.ownership import owned
from jmer.training.progress import Progress
from jmer.training.sweep import RATES

# A corpus is known by its contents, wherever it lies, and a run may be computed in another way.
CIRCUMSTANCES = (
    "data.path",
    "training.parallel",
    "training.devices",
    "training.resident_megabytes",
    "training.grace_seconds",
    "training.accumulation_steps",
    "training.rematerialize",
)
# What a run that is resumed can have from its next step on, when it is asked for by name.
CHANGEABLE = (*RATES, "training.patience")


class Request(NamedTuple):
    """What a run's directory is to hold: a run of this configuration, fitted to its corpus, with these facts.

    Attributes:
      changing: fields, among `CHANGEABLE`, that the run that is there may have had with another value until now.
    """

    workdir: Path
    config: ConfigDict
    facts: RunFacts
    changing: Collection[str] = ()


@contextlib.contextmanager
def claim(requests: Sequence[Request]) -> Iterator[list[str]]:
    """Locks the directories of runs within the block and writes their configurations and facts.

    What trained a finished run stays on record. Nothing is written anywhere unless all requests can be met. Yields a
    line for each change of a run.

    Raises:
      RunInUse: if another process or thread works in one of them.
      UserError: see `check_resume`; also if a directory cannot be written.
    """
    # Before a lock's file is left anywhere, and again with the locks: another process may have been faster.
    for request in requests:
        check_unused(request.workdir)
        check_resume(request)
    with contextlib.ExitStack() as stack:
        for request in requests:
            stack.enter_context(lock(request.workdir))
            stack.enter_context(owned(request.workdir))
        finished = [check_resume(request) for request in requests]
        changes = [_changes(request) for request in requests]
        for request, nothing_left, changed in zip(requests, finished, changes, strict=True):
            _record(request, nothing_left, changed)
        yield [f"{r.workdir}: {change}" for r, changed in zip(requests, changes, strict=True) for change in changed]


def check_resume(request: Request) -> bool:
    """Checks that a directory is free, or holds a run that can be resumed as it is asked to.

    Returns:
      Whether the run is there and has nothing left to train.

    Raises:
      UserError: if the directory holds anything else, or a run that differs by more than `CIRCUMSTANCES`,
        `scoring_fields`, `training.epochs` and what is to change, or has trained for more epochs than are asked for; or
        if something is to change, but there is no run or nothing left to train.
    """
    workdir, config = request.workdir, request.config
    if not (workdir / CONFIG_FILE).exists():
        check_free(workdir)
        if request.changing:
            raise UserError(f"{workdir} holds no run that is resumed: leave out --change-on-resume (change_on_resume)")
        return False
    may_differ = ("training.epochs", *CHANGEABLE, *scoring_fields(read_config(workdir)))
    check_run(workdir, config, request.facts.corpus, may_differ=may_differ)
    changes = _changes(request)
    for change in changes:
        if change.field not in request.changing:
            raise UserError(
                f"{workdir} belongs to another configuration: {change.field} is {change.before} there and "
                f"{change.after} here; choose another workdir, or resume with the new value from the next step by "
                f"--change-on-resume {change.field} (change_on_resume)"
            )
    progress = newest_progress(workdir / CHECKPOINT_FOLDER)
    _check_epochs(workdir, progress, config)
    finished = is_finished(progress, config)
    if finished and changes:
        raise UserError(
            f"{workdir} has nothing left to train with another {changes[0].field}: raise training.epochs too, or leave "
            "out --change-on-resume (change_on_resume)"
        )
    return finished


def _changes(request: Request) -> list[Change]:
    """Returns in what the run that is in a directory is to change, among `CHANGEABLE`."""
    if not (request.workdir / CONFIG_FILE).exists():
        return []
    there, here = flatten(read_config(request.workdir)), flatten(request.config)
    names = [name for name in CHANGEABLE if there[name] != here[name]]
    progress = newest_progress(request.workdir / CHECKPOINT_FOLDER) if names else Progress()
    return [Change(name, there[name], here[name], progress.epoch, progress.batch) for name in names]


def _check_epochs(workdir: Path, progress: Progress, config: ConfigDict) -> None:
    """Raises UserError if a run cannot become what it would be if it was trained for so many epochs from the start."""
    planned, asked, schedule = read_config(workdir).training.epochs, config.training.epochs, config.optimizer.schedule
    if asked != planned and schedule in OF_ALL_STEPS:
        raise UserError(
            f"{workdir} belongs to another configuration: training.epochs is {planned} there and {asked} here, and "
            f"optimizer.schedule={schedule} depends on it; choose another workdir"
        )
    begun = progress.epoch + (progress.batch > 0)
    if asked < begun:
        part = " and a part of another" if progress.batch else ""
        raise UserError(
            f"{workdir} has trained for {progress.epoch} epochs{part}, and training.epochs is {asked}: ask for at "
            f"least {begun}, or choose another workdir"
        )


def _record(request: Request, finished: bool, changes: Sequence[Change]) -> None:
    """Writes a run's facts and configuration."""
    config = request.config
    if finished:
        # Nothing is computed in another way: only where the corpus lies, how many epochs are asked for, and scores.
        config = read_config(request.workdir)
        config.data.path, config.training.epochs = request.config.data.path, request.config.training.epochs
        config.majority_emotion = request.config.majority_emotion
    else:
        begun = (request.workdir / CONFIG_FILE).exists()
        # A writer that was killed may have written the last ones already.
        recorded = dict.fromkeys((*(read_facts(request.workdir).changes if begun else ()), *changes))
        facts = dataclasses.replace(request.facts, changes=tuple(recorded))
        write_json(request.workdir / RUN_FILE, dataclasses.asdict(facts))
    write_json(request.workdir / CONFIG_FILE, config.to_dict())


def check_run(workdir: Path, config: ConfigDict, corpus: Identity, *, may_differ: Collection[str] = ()) -> None:
    """Checks that a directory holds the run of a configuration and a corpus.

    Args:
      workdir: the run's directory.
      config: fitted to the corpus.
      corpus: of the training corpus.
      may_differ: fields that may, besides `CIRCUMSTANCES`.

    Raises:
      UserError: if there is no run, or it is another one.
    """
    saved = read_config(workdir)
    # Of another corpus, what a configuration is filled in with differs too.
    if found := other_corpus(workdir, saved, corpus):
        raise UserError(f"{found}; choose another workdir")
    check_same(workdir, saved, config, ignore=(*CIRCUMSTANCES, *may_differ))


def check_use(workdir: Path, config: ConfigDict) -> None:
    """Checks that a configuration differs from that of a run by its corpus, devices and scores alone.

    Raises:
      UserError: if there is no run, or another field differs.
    """
    saved = read_config(workdir)
    check_same(workdir, saved, config, ignore=(*CIRCUMSTANCES, *scoring_fields(saved)))


def scoring_fields(config: ConfigDict) -> tuple[str, ...]:
    """Returns the fields of a run's configuration that only its scores depend on, not what it trains or chooses."""
    return () if config.selection_metric == MICRO_F1 else ("majority_emotion",)


def check_same(workdir: Path, saved: ConfigDict, config: ConfigDict, *, ignore: Collection[str]) -> None:
    """Raises UserError, naming the first field that differs, if a run has another configuration."""
    there, here = flatten(saved), flatten(config)
    for name in sorted(there.keys() | here.keys()):
        if name not in ignore and there.get(name) != here.get(name):
            raise UserError(
                f"{workdir} belongs to another configuration: {name} is {there.get(name)!r} there and "
                f"{here.get(name)!r} here; choose another workdir"
            )


def other_corpus(workdir: Path, config: ConfigDict, corpus: Identity) -> str:
    """Returns the start of an error: in what a corpus differs from that of a run; empty if it is the same to the run.

    Args:
      workdir: the run's directory.
      config: the run's configuration.
      corpus: of the other corpus.
    """
    facts = read_facts(workdir)
    found = difference(facts.corpus, corpus, config.model.modalities, config.attributes.names)
    return found and f"{workdir} was trained on another version of corpus '{facts.card.name}': {found}"
