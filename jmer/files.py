"""Files that are either whole or not there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jmer.errors import UserError

TEMPORARY = ".writing-"
"""How names begin of what a killed writer leaves behind."""


@contextlib.contextmanager
def atomically(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path with the same suffix beside `path`, and renames it to `path` when the block succeeds.

    A reader sees the old file or the whole new one, whenever the writer is killed. If the block fails, the old file
    stays and the temporary one goes. Missing parent folders are made.

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
