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
from jmer.training.checkpointing import Checkpoints
from jmer.training.early_stopping import is_finished
from jmer.training.progress import Progress

# A corpus is known by its contents, wherever it lies, and a run may be computed in another way.
CIRCUMSTANCES = ("data.path", "training.parallel", "training.devices", "training.resident_megabytes")


class Request(NamedTuple):
    """What a run's directory is to hold: a run of this configuration, fitted to its corpus, with these facts."""

    workdir: Path
    config: ConfigDict
    facts: RunFacts


@contextlib.contextmanager
def claim(requests: Sequence[Request]) -> Iterator[None]:
    """Locks the directories of runs within the block and writes their configurations and facts.

    What trained a finished run stays on record. Nothing is written anywhere unless all requests can be met.

    Raises:
      RunInUse: if another process or thread works in one of them.
      UserError: see `check_resume`; also if a directory cannot be written.
    """
    # Before a lock's file is left anywhere, and again with the locks: another process may have been faster.
    for request in requests:
        check_unused(request.workdir)
        check_resume(request.workdir, request.config, request.facts.corpus)
    with contextlib.ExitStack() as stack:
        for request in requests:
            stack.enter_context(lock(request.workdir))
        finished = [check_resume(r.workdir, r.config, r.facts.corpus) for r in requests]
        for request, nothing_left in zip(requests, finished, strict=True):
            _record(request, nothing_left)
        yield


def check_resume(workdir: Path, config: ConfigDict, corpus: Identity) -> bool:
    """Checks that a directory is free, or holds a run that can be resumed as it is asked to.

    Args:
      workdir: the directory.
      config: what is asked for, fitted to the corpus.
      corpus: of the corpus to train on.

    Returns:
      Whether the run is there and has nothing left to train.

    Raises:
      UserError: if the directory holds anything else, or a run that differs by more than `CIRCUMSTANCES` and
        `training.epochs`, or has trained for more epochs than are asked for.
    """
    if not (workdir / CONFIG_FILE).exists():
        check_free(workdir)
        return False
    check_run(workdir, config, corpus, may_differ=("training.epochs",))
    progress = read_progress(workdir)
    _check_epochs(workdir, progress, config)
    return is_finished(progress, config)


def _check_epochs(workdir: Path, progress: Progress, config: ConfigDict) -> None:
    """Raises UserError if a run cannot become what it would be if it was trained for so many epochs from the start."""
    planned, asked, schedule = read_config(workdir).training.epochs, config.training.epochs, config.optimizer.schedule
    if asked != planned and schedule != "constant":
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


def _record(request: Request, finished: bool) -> None:
    """Writes a run's facts and configuration."""
    config = request.config
    if finished:
        # Nothing is computed in another way: only where the corpus lies, and how many epochs are asked for.
        config = read_config(request.workdir)
        config.data.path, config.training.epochs = request.config.data.path, request.config.training.epochs
    else:
        write_json(request.workdir / RUN_FILE, dataclasses.asdict(request.facts))
    write_json(request.workdir / CONFIG_FILE, config.to_dict())


def read_progress(workdir: Path) -> Progress:
    """Returns how far the run in a directory has come. Raises UserError if its newest checkpoint is damaged."""
    folder = workdir / CHECKPOINT_FOLDER
    if not folder.exists():
        return Progress()
    with Checkpoints(folder, clean=False) as checkpoints:
        newest = checkpoints.newest
        return Progress() if newest is None else checkpoints.progress(newest)


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
    scoring = () if saved.selection_metric == MICRO_F1 else ("majority_emotion",)
    check_same(workdir, saved, config, ignore=(*CIRCUMSTANCES, *scoring))


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
    found = difference(facts.corpus, corpus, config.model.modalities)
    return found and f"{workdir} was trained on another version of corpus '{facts.card.name}': {found}"
