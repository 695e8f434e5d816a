"""Atomic writing of files."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jmer.errors import UserError

TEMPORARY = ".writing-"
"""Prefix of the temporary folders that a killed writer leaves behind."""

REMEDIES = {
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "free the disk",
    errno.EACCES: "get permission to write there",
    errno.EPERM: "get permission to write there",
    errno.EROFS: "get permission to write there",
}


@contextlib.contextmanager
def atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, with the same suffix, and renames it to `path` when the block succeeds.

    Whenever the writer is killed, a reader sees the old file or the complete new one. If the block fails, the old file
    is kept and the temporary one deleted. Missing parent folders are created.

    Raises:
      UserError: if the file cannot be written (no permission, disk full, ...).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise not_written(f"cannot write {path}", error, "name another folder") from error


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
