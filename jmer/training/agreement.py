"""What one process refuses, all processes refuse."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from jmer.errors import UserError


def agree(error: UserError | None) -> None:
    """Raises an error on all processes if one of them has one; all must call it, at the same point.

    A process that raised alone would leave the others in the next collective operation, where they wait for it. What
    only some processes may find wrong (files, folders, memory) is therefore checked within `agreeing`.

    Args:
      error: what this process refuses, None = nothing.

    Raises:
      UserError: the error of this process; without one, that of the first process that has one, with its index.
    """
    if jax.process_count() > 1:
        lines = gather_texts("" if error is None else str(error))
        for process, line in enumerate(lines):
            if line and error is None:
                raise UserError(*f"process {process} of {len(lines)}: {line}".split("\n"))
    if error is not None:
        raise error


@contextlib.contextmanager
def agreeing() -> Iterator[None]:
    """Calls `agree` with the UserError that the block raises, or with None; nothing in it may wait for the others."""
    error = None
    try:
        yield
    except UserError as found:
        error = found
    agree(error)


def gather_texts(text: str) -> list[str]:
    """Returns the texts that the processes give, in the order of the processes; all must call it."""
    own = np.frombuffer(text.encode(errors="backslashreplace"), np.uint8)
    # Arrays of all processes have one shape.
    lengths = multihost_utils.process_allgather(np.int32(own.size))
    padded = np.zeros(max(1, lengths.max()), np.uint8)
    padded[: own.size] = own
    texts = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes().decode() for row, length in zip(texts, lengths, strict=True)]
