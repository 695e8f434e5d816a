"""SHA-256 of files, which say that a checkpoint or a recording is the same wherever it lies."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jmer.errors import UserError


def sha256_of_file(path: Path) -> str:
    """Returns the hash of a file's content; a file that has not changed since is not read again.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        status = path.stat()
        return _hash(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def sha256_of_files(paths: Sequence[Path]) -> str:
    """Returns the hash of a file's content, or of the names and contents of several."""
    if len(paths) == 1:
        return sha256_of_file(paths[0])
    lines = sorted(f"{path.name} {sha256_of_file(path)}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@functools.cache
def _hash(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
