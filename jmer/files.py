"""Atomic writing of files."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jmer.errors import UserError

TEMPORARY = ".writing-"
"""Prefix of the temporary folders that a killed writer leaves behind."""


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
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot write {path} ({reason}): free the disk or name another folder") from error
