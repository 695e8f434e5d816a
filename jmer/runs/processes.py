"""What processes that train together must have in common: configuration, corpus, and the run's directory."""

import dataclasses
import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from jmer.config import flatten
from jmer.data.identity import Identity, difference
from jmer.digests import digest
from jmer.errors import UserError
from jmer.files import TEMPORARY, not_written
from jmer.json_values import from_json
from jmer.training.agreement import agreeing, gather_texts
from jmer.training.parallel import is_main_process

VISIBLE_SECONDS = 10.0
"""Time in which what one process writes must be there for the others; network file systems do not show it at once."""

SAME_COMMAND = "start all processes with the same command"
# A corpus may lie elsewhere on each machine.
_PLACES = ("data.path",)


@dataclasses.dataclass(frozen=True)
class _Request:
    """What a process is asked to train, in what can be sent to the others."""

    config: dict[str, str]
    corpus: Identity


def check_same_request(config: ConfigDict, corpus: Identity) -> None:
    """Checks that all processes have the same configuration and corpus; all must call it.

    Raises:
      UserError: the same on all processes; it names the first process that differs from process 0, and in what.
    """
    if jax.process_count() == 1:
        return
    fields = {name: repr(value) for name, value in flatten(config).items() if name not in _PLACES}
    own = _Request(fields, corpus)
    text = json.dumps(dataclasses.asdict(own), sort_keys=True)
    if len(set(gather_texts(digest(text.encode())))) == 1:
        return
    first, *others = (from_json(_Request, json.loads(found)) for found in gather_texts(text))
    names = config.model.modalities, config.attributes.names
    for process, other in enumerate(others, 1):
        if found := _difference(first, other, process, *names):
            raise UserError(found)


def _difference(
    first: _Request, other: _Request, process: int, modalities: Sequence[str], attributes: Sequence[str]
) -> str:
    """Returns in what a process' request differs from that of process 0, in one line; empty if in nothing."""
    # Of another corpus, what a configuration is filled in with differs too.
    if found := difference(other.corpus, first.corpus, modalities, attributes):
        return f"process {process} has another corpus than process 0: {found}; give all processes the same one"
    for name in sorted(first.config.keys() | other.config.keys()):
        if first.config.get(name) != other.config.get(name):
            return (
                f"process {process} has another configuration than process 0: {name} is {other.config.get(name)} there "
                f"and {first.config.get(name)} in process 0; {SAME_COMMAND}"
            )
    return ""


def check_shared(workdir: Path) -> None:
    """Checks that all processes read and write the same directory; all must call it.

    Raises:
      UserError: on all processes, if it is another directory for one of them, or one cannot write it.
    """
    if jax.process_count() == 1:
        return
    token = gather_texts(secrets.token_hex(8))[0]
    # A folder, as a checkpoint is one: with the permissions that process 0 gives it, the others must write into it.
    folder = workdir / f"{TEMPORARY}{token}"
    try:
        with agreeing():
            if is_main_process():
                _make(folder, workdir)
        with agreeing():
            if not is_main_process():
                _await(folder)
                _make(folder / str(jax.process_index()), workdir)
    finally:
        if is_main_process():
            shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path, workdir: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise not_written(f"cannot write {workdir}", error, "choose a workdir that all processes can write") from error


def _await(folder: Path) -> None:
    """Waits until a folder is there."""
    workdir, deadline = folder.parent, time.monotonic() + VISIBLE_SECONDS
    while time.monotonic() < deadline:
        try:
            # To open the folder makes a network file system ask the server for what is in it.
            if folder.name in os.listdir(workdir):
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UserError(
                f"cannot read {workdir} ({error.strerror}): choose a workdir that all processes can read and write"
            ) from error
        time.sleep(0.1)
    raise UserError(
        f"{workdir} is not the folder that process 0 has there: choose a workdir on a file system that all machines "
        "share"
    )
