"""How much memory a file may take when it is read, so that a small file cannot fill the machine.

What a reader makes of a file may take `FLOOR_MB` or `FACTOR` times the size of the file, whichever is more; the
environment variable `JMER_READ_MB` sets another number of MB. A reader opens `reading(path)` and calls `spend` before
it allocates what the file asks for.
"""

import contextlib
import contextvars
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from jmer.errors import UserError

FACTOR = 100
FLOOR_MB = 256
VARIABLE = "JMER_READ_MB"
ROW_BYTES = 400
"""About what Python takes for a row of a table, whose cells are few and equal in the file."""
EMPTY_ROWS = 1 << 16
"""The most rows, or other elements, of an array that has no bytes."""
HELP = (
    f"What is made of a file may take {FLOOR_MB} MB of memory or {FACTOR} times the size of the file, whichever is "
    f"more; the environment variable {VARIABLE} sets another number of MB."
)


@dataclasses.dataclass
class _Budget:
    path: Path
    left: float


_budget: contextvars.ContextVar[_Budget | None] = contextvars.ContextVar("budget", default=None)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Limits what `spend` may add up to while a file is read; inside another `reading` of it nothing changes."""
    current = _budget.get()
    if current and current.path == path:
        yield
        return
    token = _budget.set(_Budget(path, _allowance(path)))
    try:
        yield
    finally:
        _budget.reset(token)


def spend(count: int, what: str) -> None:
    """Counts bytes that the file being read asks for.

    Args:
      count: number of bytes.
      what: they are for, for the error.

    Raises:
      UserError: if they are more than the file may take in all.
    """
    budget = _budget.get()
    if budget is None:
        return
    budget.left -= count
    if budget.left < 0:
        raise UserError(
            f"{budget.path} is refused: {what} would take far more memory than the file is large; if it is meant so, "
            f"set the environment variable {VARIABLE} to the number of MB that it may take"
        )


def _allowance(path: Path) -> float:
    given = os.environ.get(VARIABLE)
    if given is None:
        size = path.stat().st_size if path.is_file() else 0
        return max(FLOOR_MB << 20, FACTOR * size)
    if not given.isdecimal() or len(given) > 9 or not int(given):
        raise UserError(f"{VARIABLE} is '{given[:20]}': expected a number of MB")
    return int(given) << 20
