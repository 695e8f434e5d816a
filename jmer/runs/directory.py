"""The directory of a run: its lock, its configuration and facts, and where its files lie."""

import contextlib
import dataclasses
import errno
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from jmer.config import check_values, config_from_json, flatten
from jmer.data.corpus import Card
from jmer.data.identity import Identity
from jmer.data.speakers import CORPUS
from jmer.digests import DIGEST, sealed, unsealed
from jmer.errors import UserError
from jmer.evaluation.report import REPORT_FILE
from jmer.files import TEMPORARY, atomically, not_written
from jmer.json_values import from_json
from jmer.models import model_names
from jmer.training.ownership import OWNER_FILE, find_owner

Kind = TypeVar("Kind")

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
PREDICTION_FOLDER = "predictions"
SCORES_FILE = "scores.json"
# Directories of the runs of several seeds, followed by the seed, in one parent directory.
SEED_FOLDER = "seed"
# Results for corpora other than the training corpus, a directory each.
OTHER_CORPORA_FOLDER = "other_corpora"
# Of file systems that have no locks.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
# Of run.json; runs of an earlier version cannot be read.
FORMAT = 6


@dataclasses.dataclass(frozen=True)
class Change:
    """A field of the configuration that had another value until a run was resumed.

    Attributes:
      field: its name, `section.field`.
      before, after: its values.
      epochs: finished before the change.
      steps: of the next epoch that were taken before the change.
    """

    field: str
    before: float
    after: float
    epochs: int
    steps: int

    def __str__(self) -> str:
        steps = f" and {self.steps} steps" if self.steps else ""
        return f"{self.field} from {self.before} to {self.after} after {self.epochs} epochs{steps}"


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a run was made with, besides its configuration.

    Attributes:
      card: the training corpus' card.
      corpus: what the training corpus contains.
      versions: of the software and the devices.
      command: the command line or call that trained it.
      parameters: number of trainable parameters.
      experiment: path of the experiment's file, which may register a model; empty if there is none.
      changes: of the configuration when the run was resumed.
      format: of the run's directory.
    """

    card: Card
    corpus: Identity
    versions: Mapping[str, str]
    command: str
    parameters: int
    experiment: str = ""
    changes: tuple[Change, ...] = ()
    format: int = FORMAT


class RunInUse(UserError):
    """Another process, or another thread, works in a run's directory."""


@contextlib.contextmanager
def lock(workdir: Path, *, wait: bool = True) -> Iterator[None]:
    """Locks a run's directory, which is made if it is not there, within the block.

    A thread that holds the lock may take it again. However a process ends, the operating system releases the lock; the
    file stays and means nothing. Processes of other machines, which the lock may not reach, are kept out by
    `jmer.training.ownership`.

    Args:
      workdir: the directory.
      wait: whether to watch for a while if a process of another machine still works there; False = it does.

    Raises:
      RunInUse: if another process or thread works there.
      UserError: if the directory cannot be written.
    """
    # One object per path: a second one would find the directory locked by the first.
    held, locked = FileLock(workdir.resolve() / LOCK_FILE, is_singleton=True), True
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout as error:
        raise RunInUse(
            f"another process or thread works in {workdir}: wait until it has ended, stop it, or choose another workdir"
        ) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise not_written(f"cannot write {workdir}", error, "choose another workdir") from error
        locked = False
    try:
        if owner := find_owner(workdir, locked=locked, wait=wait):
            raise RunInUse(f"{owner} works in {workdir}: wait until it has ended, stop it, or choose another workdir")
        yield
    finally:
        held.release()


def is_in_use(workdir: Path) -> bool:
    """Returns whether another process or thread works in a run's directory."""
    try:
        with lock(workdir, wait=False):
            return False
    except RunInUse:
        return True


def check_unused(workdir: Path) -> None:
    """Raises RunInUse if another process or thread works in a directory; leaves nothing there."""
    if (workdir / LOCK_FILE).exists():
        with lock(workdir):
            pass


def check_free(workdir: Path) -> None:
    """Checks that a directory holds nothing, or what was left by a run that was killed before it began.

    Raises:
      UserError: if it holds anything else.
    """
    if folders := seed_folders(workdir):
        raise UserError(
            f"{workdir} holds the runs of several seeds: choose another workdir, or one of theirs ({folders[0].name})"
        )
    if workdir.exists():
        check_files(workdir, own="|".join(map(re.escape, (RUN_FILE, LOCK_FILE, OWNER_FILE))))


def check_parent(workdir: Path, seeds: range) -> None:
    """Checks that a directory may hold the runs of several seeds and their report.

    Args:
      workdir: the directory.
      seeds: those that are asked for.

    Raises:
      UserError: if it is the directory of a single run, has runs of other seeds, or holds anything else.
    """
    if (workdir / CONFIG_FILE).exists():
        raise UserError(f"{workdir} is the directory of a single run: choose another workdir for several seeds")
    if workdir.exists():
        check_files(workdir, own=rf"{SEED_FOLDER}\d+|{re.escape(REPORT_FILE)}")
    there = [read_config(folder).seed for folder in seed_folders(workdir)]
    if not set(there) <= set(seeds):
        # A report is of all the runs in the directory.
        first, last = min(*there, *seeds), max(*there, *seeds)
        raise UserError(
            f"{workdir} holds the runs of seeds {_listed(there)}, and seeds {_listed(seeds)} are asked for: ask for "
            f"all of them (seed={first}, seeds={last - first + 1}), or choose another workdir"
        )


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def seed_folders(workdir: Path) -> list[Path]:
    """Returns the directories of the runs of several seeds in their parent, in the order of the seeds."""
    found = [path.parent for path in workdir.glob(f"{SEED_FOLDER}*/{CONFIG_FILE}")]
    return sorted(found, key=lambda folder: read_config(folder).seed)


def check_files(workdir: Path, own: str) -> None:
    """Raises UserError if a directory holds anything but files whose whole name matches `own`."""
    if not workdir.is_dir():
        raise UserError(f"{workdir} is a file, not a folder: choose another workdir")
    foreign = [p.name for p in workdir.iterdir() if not re.fullmatch(f"{own}|{re.escape(TEMPORARY)}.*", p.name)]
    if foreign:
        raise UserError(f"{workdir} holds no run but other files ({sorted(foreign)[0]}): choose another workdir")


def read_config(workdir: Path) -> ConfigDict:
    """Returns the configuration of the run in a directory, as it was fitted to its corpus.

    Raises:
      UserError: if there is none, it is damaged, or its model is not registered.
    """
    path = workdir / CONFIG_FILE
    fields, facts = read_json(path), read_facts(workdir)
    try:
        name = from_json(str, flatten(fields).get("model.name"), "model.name")
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if name not in model_names():
        source = f"--config {facts.experiment}" if facts.experiment else "--config and the experiment's file"
        raise UserError(
            f"{workdir} was trained with model '{name}', which is not registered: import the file that registers it, "
            f"or add {source}"
        )
    try:
        config = config_from_json(name, fields)
        check_values(config)
        _check_fitted(config, facts.card)
    except ValueError as error:
        raise damaged(path, error) from error
    return config


def _check_fitted(config: ConfigDict, card: Card) -> None:
    """Raises ValueError if a configuration is not fitted to a corpus with that card."""
    lacking = [modality for modality in config.model.modalities if modality not in card.widths]
    if lacking or not config.model.modalities:
        raise ValueError(
            f"model.modalities is {', '.join(lacking) or 'empty'}: expected some of {', '.join(card.widths)}"
        )
    if config.model.num_classes != len(card.emotions):
        raise ValueError(f"model.num_classes is {config.model.num_classes}: expected {len(card.emotions)}")
    if (config.data.speaker_index == CORPUS) != bool(config.data.speakers):
        listed = ", ".join(config.data.speakers) or "empty"
        raise ValueError(f"data.speakers is {listed}, with data.speaker_index={config.data.speaker_index}")
    names, scales = config.attributes.names, config.attributes.scales
    if unknown := [name for name in names if name not in card.attributes]:
        raise ValueError(f"attributes.names has {unknown[0]}: expected some of {', '.join(card.attributes) or 'none'}")
    if tuple(scales) != tuple(end for name in names for end in card.attributes[name]):
        raise ValueError(f"attributes.scales is {', '.join(map(str, scales)) or 'empty'}: expected those of the corpus")


def read_facts(workdir: Path) -> RunFacts:
    """Returns the facts of the run in a directory.

    Raises:
      UserError: if there are none, they are damaged, or an earlier version of jmer wrote them.
    """
    path = workdir / RUN_FILE
    fields = _load(path)
    if fields.get("format") != FORMAT and "card" in fields:
        raise UserError(
            f"{workdir} was written by another version of jmer, whose runs cannot be read (run.json has format "
            f"{fields.get('format')}, this version reads {FORMAT}): train it again in another workdir"
        )
    return read_as(RunFacts, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file with its digest, whole or not at all."""
    with atomically(path) as temporary:
        temporary.write_text(json.dumps(sealed(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_as(kind: type[Kind], path: Path) -> Kind:
    """Reads a file of a run's directory as a dataclass. Raises UserError if it is not there or damaged."""
    try:
        return from_json(kind, read_json(path))
    except ValueError as error:
        raise error if isinstance(error, UserError) else damaged(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote; a file of an earlier version has no digest.

    Raises:
      UserError: if it is not there or damaged.
    """
    fields = _load(path)
    try:
        return unsealed(fields) if DIGEST in fields else fields
    except ValueError as error:
        raise damaged(path, error) from error


def _load(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it is no table of names and values")
        return fields
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path.parent} holds no run: it has no {path.name}; choose another workdir, or train it first"
        ) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UserError:
    """Returns one line on a file of a run's directory that is not what was written."""
    reason = " ".join(str(error).split())
    return UserError(f"{path} is damaged ({reason}): put a copy back, or train again in another workdir")
