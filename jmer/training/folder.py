"""The folder of a run: which configuration and corpus it belongs to, and what lies where."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from jmer.config import base_config, flatten
from jmer.data.corpus import Card
from jmer.errors import UserError
from jmer.evaluation.report import REPORT_FILE
from jmer.files import TEMPORARY, atomically

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
CHECKPOINT_FOLDER = "checkpoints"
PREDICTION_FOLDER = "predictions"
SCORES_FILE = "scores.json"
# The runs of several seeds lie in one folder, each in a folder with this name and its seed.
SEED_FOLDER = "seed"
# Results for other corpora than the one of training, a folder each.
OTHER_CORPORA_FOLDER = "other_corpora"
# How a run is computed may change from one command to the next.
COMPUTATION = ("training.parallel", "training.devices", "training.resident_megabytes")


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a run was made with, besides its configuration.

    Attributes:
      card: the training corpus' card.
      versions: of the software and the devices.
      command: the command line.
      parameters: number of trained parameters.
    """

    card: Card
    versions: Mapping[str, str]
    command: str
    parameters: int


class FolderInUse(UserError):
    """Another process works in a run's folder."""


@contextlib.contextmanager
def working_in(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder, which is made if it is not there, as long as the block lasts.

    A process that is in may enter again. However it ends, the operating system lets others in; the lock's file stays
    and means nothing.

    Raises:
      FolderInUse: if another process works there.
      UserError: if the folder cannot be written.
    """
    # One object per path: a second one would find the folder locked by the first.
    lock = FileLock(workdir.resolve() / LOCK_FILE, is_singleton=True)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderInUse(
            f"another process works in {workdir}: wait until it has ended, stop it, or name another --workdir"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {workdir} ({error.strerror or error}): name another --workdir") from error
    try:
        yield
    finally:
        lock.release()


def is_in_use(workdir: Path) -> bool:
    """Whether another process works in a run's folder."""
    try:
        with working_in(workdir):
            return False
    except FolderInUse:
        return True


@contextlib.contextmanager
def claim(workdir: Path, config: ConfigDict, facts: RunFacts) -> Iterator[None]:
    """Makes a folder this run's and keeps other processes out of it as long as the block lasts.

    Its configuration and facts are written, or found to be there already.

    Raises:
      FolderInUse: if another process works there.
      UserError: if the folder belongs to another configuration or another corpus, or cannot be written.
    """
    # Before a lock is left there, and again behind it: another process may have been faster.
    _check_ours(workdir, config, facts)
    with working_in(workdir):
        _check_ours(workdir, config, facts)
        write_json(workdir / RUN_FILE, dataclasses.asdict(facts))
        write_json(workdir / CONFIG_FILE, config.to_dict())
        yield


def _check_ours(workdir: Path, config: ConfigDict, facts: RunFacts) -> None:
    """Raises UserError if a folder holds another run or anything else."""
    if (workdir / CONFIG_FILE).exists():
        saved = read_config(workdir)
        # A run may go on for longer than planned, unless the learning rate was planned to its end.
        length = ("training.epochs",) if saved.optimizer.schedule == "constant" else ()
        check_same(workdir, saved, config, ignore=(*COMPUTATION, *length))
        if read_facts(workdir).card != facts.card:
            raise UserError(f"{workdir} was trained on another version of '{facts.card.name}': name another --workdir")
    elif workdir.exists():
        # A run that was killed before its configuration was written has left these.
        _check_free(workdir, own="|".join(map(re.escape, (RUN_FILE, LOCK_FILE))))


def check_parent(workdir: Path) -> None:
    """Checks that a folder may hold the runs of several seeds, and what is said of them.

    Raises:
      UserError: if it is the folder of a single run, or holds anything else.
    """
    if (workdir / CONFIG_FILE).exists():
        raise UserError(f"{workdir} is the folder of a single run: name another --workdir for several seeds")
    if workdir.exists():
        _check_free(workdir, own=rf"{SEED_FOLDER}\d+|{re.escape(REPORT_FILE)}")


def seed_folders(workdir: Path) -> list[Path]:
    """Returns the folders of single runs in one that holds those of several seeds, in the order of the seeds."""
    found = [path.parent for path in workdir.glob(f"{SEED_FOLDER}*/{CONFIG_FILE}")]
    return sorted(found, key=lambda folder: read_config(folder).seed)


def _check_free(workdir: Path, own: str) -> None:
    """Raises UserError if a folder holds anything but files whose whole name matches `own`."""
    if not workdir.is_dir():
        raise UserError(f"{workdir} is a file, not a folder: name another --workdir")
    foreign = [p.name for p in workdir.iterdir() if not re.fullmatch(f"{own}|{re.escape(TEMPORARY)}.*", p.name)]
    if foreign:
        raise UserError(f"{workdir} holds no run but other things ({sorted(foreign)[0]}): name another --workdir")


def check_use(workdir: Path, config: ConfigDict) -> None:
    """Checks that a configuration uses the run in a folder as it was trained, on whatever corpus and devices.

    Raises:
      UserError: if there is no run, or another field is not as it is in this run.
    """
    check_same(workdir, read_config(workdir), config, ignore=("data.path", *COMPUTATION))


def check_same(workdir: Path, saved: ConfigDict, config: ConfigDict, *, ignore: Collection[str]) -> None:
    """Raises UserError, naming the first field that differs, if a folder's configuration is another one."""
    there, here = flatten(saved), flatten(config)
    for name in sorted(there.keys() | here.keys()):
        if name not in ignore and there.get(name) != here.get(name):
            raise UserError(
                f"{workdir} belongs to another configuration: {name} is {there.get(name)!r} there and "
                f"{here.get(name)!r} here; name another --workdir"
            )


def read_config(workdir: Path) -> ConfigDict:
    """Returns the configuration of the run in a folder, as it was fitted to its corpus.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    fields = read_json(workdir / CONFIG_FILE)
    try:
        config = base_config(fields["model"]["name"])
        config.update(_tuples(fields))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(workdir / CONFIG_FILE, error) from error
    return config


def read_facts(workdir: Path) -> RunFacts:
    """Returns the facts of the run in a folder. Raises UserError if there are none, or they are damaged."""
    fields = read_json(workdir / RUN_FILE)
    try:
        card = Card(**fields.pop("card"))
        return RunFacts(dataclasses.replace(card, emotions=tuple(card.emotions)), **fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(workdir / RUN_FILE, error) from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    with atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Reads a file of a run's folder. Raises UserError if it is not there or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path.parent} holds no run: it has no {path.name}; name another --workdir, or train with --mode train"
        ) from error
    except ValueError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"{path} is damaged ({reason}): put a copy back, or train again in another --workdir")


def _tuples(value: Any) -> Any:
    """Turns JSON's lists back into the tuples that configurations hold."""
    if isinstance(value, Mapping):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
