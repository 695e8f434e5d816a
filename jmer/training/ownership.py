"""Which process works in a run's directory, where a lock may not reach: on a file system that several machines share.

Whoever works there keeps a file that it refreshes. Another machine watches the file before it begins: if it changes,
the directory is in use; if it does not, its owner has died. No clocks are compared. Whoever was thought dead, as after
a pause, finds another owner before it saves anything.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from jmer.errors import UserError
from jmer.files import TEMPORARY, not_written
from jmer.json_values import from_json
from jmer.warning import warn

OWNER_FILE = "run.owner"
REFRESH_SECONDS = 10.0
STALE_SECONDS = 3 * REFRESH_SECONDS
POLL_SECONDS = 1.0

_BOOT = Path("/proc/sys/kernel/random/boot_id")
# By path: what this process owns, and the thread; contents of the file, and when this process has first seen them.
_owned: dict[Path, tuple["Owner", int]] = {}
_seen: dict[Path, tuple[bytes, float]] = {}


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process that works in a run's directory.

    Attributes:
      token: random, another one each time.
      machine: what no two running systems have in common.
      host: the machine's name.
      process: its number there.
      refreshed: how often it has written this.
    """

    token: str
    machine: str
    host: str
    process: int
    refreshed: int = 0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@contextlib.contextmanager
def owned(workdir: Path) -> Iterator[None]:
    """Owns a directory within the block; only for those who hold its lock, or have found that there is none.

    Raises:
      UserError: if the directory cannot be written.
    """
    path = workdir.resolve() / OWNER_FILE
    owner, ended = Owner(secrets.token_hex(8), _machine(), socket.gethostname(), os.getpid()), threading.Event()
    try:
        _write(path, owner)
    except OSError as error:
        raise not_written(f"cannot write {workdir}", error, "choose another workdir") from error
    _owned[path] = owner, threading.get_ident()
    threading.Thread(target=_refresh, args=(path, owner, ended), name=f"owner of {workdir}", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        del _owned[path]
        with contextlib.suppress(OSError):
            if _token(path) == owner.token:
                path.unlink()


def check_owned(workdir: Path) -> None:
    """Raises UserError if a directory that this process owns has got another owner since, or has gone."""
    path = workdir.resolve() / OWNER_FILE
    if path not in _owned:
        return
    if not (found := _read(path)):
        raise UserError(
            f"{workdir} is gone, or another folder than that in which this run was training ({OWNER_FILE} is missing): "
            "put it back, and the same command resumes from what was saved"
        )
    if (other := _parsed(found)).token != _owned[path][0].token:
        raise UserError(
            f"{other} has taken over {workdir}, since this process had stopped for a while: this one ends, and what it "
            "has saved before is kept; wait for the other one, or choose another workdir"
        )


def find_owner(workdir: Path, *, locked: bool, wait: bool) -> Owner | None:
    """Returns the process that works in a directory; None if there is none, or it has died.

    Args:
      workdir: the directory.
      locked: whether this process holds its lock, so that no other one of this machine works there.
      wait: whether to watch until it is certain whether the owner lives; False = it lives unless it is known.
    """
    path = workdir.resolve() / OWNER_FILE
    first = None
    while content := _read(path):
        owner = _parsed(content)
        if _is_own(path) or (locked and owner.machine == _machine()):
            break
        if first is None:
            first = content
            if wait:
                warn(f"{owner} works in {workdir}, or has not ended properly: waiting up to {STALE_SECONDS:.0f} s")
        if content != first or (not wait and _unchanged_seconds(path, content) < STALE_SECONDS):
            return owner
        if _unchanged_seconds(path, content) >= STALE_SECONDS:
            warn(f"{owner} shows no sign of life in {workdir}, which is taken over")
            break
        time.sleep(POLL_SECONDS)
    return None


def _is_own(path: Path) -> bool:
    return path in _owned and _owned[path][1] == threading.get_ident()


def _refresh(path: Path, owner: Owner, ended: threading.Event) -> None:
    """Refreshes the file of an owner until it has ended or has lost the directory."""
    while not ended.wait(REFRESH_SECONDS):
        owner = dataclasses.replace(owner, refreshed=owner.refreshed + 1)
        # A folder that is gone may come back, and another one may be there meanwhile: the next save tells.
        with contextlib.suppress(OSError):
            if _token(path) == owner.token:
                _write(path, owner)


def _write(path: Path, owner: Owner) -> None:
    """Writes an owner's file, whole or not at all; raises OSError where the directory is not there any more."""
    temporary = path.with_name(f"{TEMPORARY}{owner.token}")
    try:
        temporary.write_text(json.dumps(dataclasses.asdict(owner)) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _token(path: Path) -> str:
    """Returns the token of the owner that a file names, empty if there is no file."""
    content = _read(path)
    return _parsed(content).token if content else ""


def _parsed(content: bytes) -> Owner:
    try:
        return from_json(Owner, json.loads(content))
    except (ValueError, RecursionError):
        return Owner("", "", "an unknown machine", 0)


def _unchanged_seconds(path: Path, content: bytes) -> float:
    """Returns for how long this process has seen the same contents in a file."""
    now = time.monotonic()
    if _seen.get(path, (b"", now))[0] != content:
        _seen[path] = content, now
    return now - _seen[path][1]


def _machine() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
