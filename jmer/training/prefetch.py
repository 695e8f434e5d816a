"""Batches that are built and put on the devices while the devices compute an earlier one."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

AHEAD = 2
"""Batches on the devices or on their way there, beside the one that is computed."""


@contextlib.contextmanager
def prefetched(batches: Iterable[Any], place: Callable[[Any], Any], ahead: int = AHEAD) -> Iterator[Iterator[Any]]:
    """Gives an iterator over `place(batch)` of each batch, in order, while a thread prepares those that follow.

    What building or placing a batch raises is raised where that batch would come. The thread ends with the block.

    Args:
      batches: none of them None; built one by one, by the thread alone.
      place: puts a batch on the devices.
      ahead: how many batches the thread prepares at most that were not taken yet.
    """
    # (batch, None), (None, what was raised), or None at the end.
    made: queue.SimpleQueue[tuple[Any, BaseException | None] | None] = queue.SimpleQueue()
    room, closed = threading.Semaphore(ahead), threading.Event()

    def produce() -> None:
        try:
            remaining = iter(batches)
            while room.acquire() and not closed.is_set():
                batch = next(remaining, None)
                made.put(None if batch is None else (place(batch), None))
                if batch is None:
                    return
        except BaseException as error:
            made.put((None, error))

    def consume() -> Iterator[Any]:
        while (entry := made.get()) is not None:
            batch, error = entry
            if error is not None:
                raise error
            room.release()
            yield batch

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        closed.set()
        room.release()
        thread.join()
