"""Names of files, and writing them atomically."""

import contextlib
import errno
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from jmer.errors import UserError

TEMPORARY = ".writing-"
"""Prefix of the temporary folders that a killed writer leaves behind."""

REMEDIES = {
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "delete files of yours, have the quota raised",
    errno.EACCES: "get permission to write there",
    errno.EPERM: "get permission to write there",
    errno.EROFS: "have the file system mounted for writing",
    errno.ESTALE: "wait until the file system is there again",
    errno.EIO: "have the disk or the file system repaired",
}

LONGEST_FILE_NAME = 150
"""In bytes of UTF-8: most file systems allow 255, with the suffix."""
# Names of devices on Windows, whatever their suffix.
_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)
# Of object stores and web servers. One letter is a drive of Windows; pathlib makes one slash of two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)")
_WITHIN = re.compile(r"(?:^|[=,:])([A-Za-z][A-Za-z0-9+.-]+://.*)", re.DOTALL)
_WEB = ("http", "https", "ftp", "sftp", "hf")


def local_path(path: str | PathLike[str]) -> Path:
    """Returns the path of a file or a folder. Raises UserError for an address such as `gs://bucket/run`."""
    text = str(path)
    if (found := _ADDRESS.match(text)) and not Path(text).exists():
        raise _refusal(found[1].lower(), text[found.end() :], text)
    return Path(path)


def check_argument(argument: str) -> None:
    """Raises UserError for an argument of a command line that is an address, or gives one to a flag or a field."""
    if found := _WITHIN.search(argument):
        local_path(found[1])


def _refusal(scheme: str, rest: str, text: str) -> UserError:
    if scheme == "file":
        remedy = f"give the path alone (/{rest.lstrip('/')})"
    elif scheme in _WEB:
        remedy = "download what is there, and give the file or folder"
    else:
        remedy = (
            "give a folder, and copy it from and to the store (as with `gcloud storage rsync`, `aws s3 sync` or "
            "`hadoop distcp`), or mount the store and give its folder"
        )
    return UserError(f"{text} is an address, and files and folders alone can be read and written: {remedy}")


def file_names(names: Sequence[str]) -> list[str]:
    """Returns names of files without a suffix for names of anything, all different and safe on any file system.

    Letters of any language, digits, hyphens and underscores stay, whatever else there is becomes an underscore.

    >>> file_names(["dia 1", "dia/1", "Zoë", "../etc", ""])
    ['dia_1', 'dia_1-2', 'Zoë', '_etc', '_']
    """
    taken: set[str] = set()
    found = []
    for name in names:
        safe = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", name)) or "_"
        safe = _shortened("_" + safe if _DEVICES.fullmatch(safe) or safe.startswith("-") else safe)
        number, candidate = 1, safe
        while candidate.casefold() in taken:  # as on a file system that tells no upper from lower case
            number += 1
            candidate = f"{safe}-{number}"
        taken.add(candidate.casefold())
        found.append(candidate)
    return found


def _shortened(name: str) -> str:
    return name.encode()[:LONGEST_FILE_NAME].decode(errors="ignore")


@contextlib.contextmanager
def atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, with the same suffix, and renames it to `path` when the block succeeds.

    A reader sees the old file or the complete new one, whenever the writer is killed or the machine fails. If the block
    fails, the old file is kept and the temporary one deleted. Missing parent folders are created.

    Raises:
      UserError: if the file cannot be written (no permission, disk full, ...).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            flush_to_disk(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    except OSError as error:
        raise not_written(f"cannot write {path}", error, "name another folder") from error


def flush_to_disk(path: Path) -> None:
    """Waits until a file, or a folder with all in it, is on the disk, where it outlives a failure of the machine.

    Raises:
      OSError: if it cannot be written there.
    """
    for each in (*path.rglob("*"), path):
        _flush(each)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Not all network file systems can do that for a folder.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_new_folder(folder: str | Path, purpose: str) -> None:
    """Raises UserError if there is anything where a folder is to be written, or nothing can be written there.

    Args:
      folder: may be there if it is empty.
      purpose: what it is for, e.g. "for the corpus".
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists: give a new folder {purpose}, or remove this one")
    check_writable(folder, "name another folder")


def check_writable(folder: Path, remedy: str) -> None:
    """Raises UserError if a folder, or the one that it would be made in, cannot be written.

    Args:
      folder: need not exist.
      remedy: beside that for the reason.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise not_written(f"cannot write {folder}", OSError(code, os.strerror(code)), remedy)


def not_written(what: str, error: Exception, remedy: str) -> UserError:
    """Returns one line on what could not be written.

    Args:
      what: start of the line.
      error: why; libraries of other languages may give the operating system's reason in their text alone.
      remedy: beside that for the reason.
    """
    code = reason_code(error)
    reason = os.strerror(code) if code else type(error).__name__
    remedies = [REMEDIES[code], remedy] if code in REMEDIES else [remedy]
    return UserError(f"{what} ({reason}): {' or '.join(remedies)}")


def reason_code(error: Exception) -> int | None:
    """Returns the operating system's number for the reason of an error; None if it is not known."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return next((code for code in REMEDIES if os.strerror(code) in str(error)), None)
