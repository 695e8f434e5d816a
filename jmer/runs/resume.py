"""What a run's directory can be used for: which requests are met when a run is resumed or used, and which refused."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from jmer.config import flatten
from jmer.data.identity import Identity, difference
from jmer.errors import UserError
from jmer.runs.directory import (
    CONFIG_FILE,
    RUN_FILE,
    RunFacts,
    check_free,
    lock,
    read_config,
    read_facts,
    write_json,
)
from jmer.selection import MICRO_F1

# A corpus is known by its contents, wherever it lies, and a run may be computed in another way.
CIRCUMSTANCES = ("data.path", "training.parallel", "training.devices", "training.resident_megabytes")


@contextlib.contextmanager
def claim(workdir: Path, config: ConfigDict, facts: RunFacts) -> Iterator[None]:
    """Locks a directory within the block and writes a run's configuration and facts there, or finds the same ones.

    Raises:
      RunInUse: if another process or thread works there.
      UserError: see `check_resume`; also if the directory cannot be written.
    """
    # Before a lock's file is left there, and again with the lock: another process may have been faster.
    check_resume(workdir, config, facts.corpus)
    with lock(workdir):
        check_resume(workdir, config, facts.corpus)
        write_json(workdir / RUN_FILE, dataclasses.asdict(facts))
        write_json(workdir / CONFIG_FILE, config.to_dict())
        yield


def check_resume(workdir: Path, config: ConfigDict, corpus: Identity) -> None:
    """Checks that a directory is free, or holds a run that can be resumed as it is asked to.

    Args:
      workdir: the directory.
      config: what is asked for, fitted to the corpus.
      corpus: of the corpus to train on.

    Raises:
      UserError: if the directory holds another run or anything else.
    """
    if not (workdir / CONFIG_FILE).exists():
        check_free(workdir)
        return
    # A run may be trained for longer than planned, unless the learning rate was scheduled to its end.
    constant = read_config(workdir).optimizer.schedule == "constant"
    check_run(workdir, config, corpus, may_differ=("training.epochs",) if constant else ())


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
