"""Timing of calls in turn, so that disturbances of the machine affect all sides alike."""

import time
from collections.abc import Callable, Iterable, Mapping

# PyTorch's threads spin for some milliseconds after their work and would slow the next call down.
REST = 0.01


def alternate(calls: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Times calls in turn, `repeats` times each, each after an untimed call of the same kind.

    As in training and serving, a timed call then finds caches and freed memory in the state that its own kind left.

    Args:
      calls: name -> function to be timed; it returns when its work is done.
      repeats: number of timed calls of each.

    Returns:
      name -> seconds of each timed call, in order.
    """
    seconds = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(REST)
            call()
            seconds[name].append(timed(call))
    return seconds


def timed(call: Callable[[], None]) -> float:
    """Returns the duration of a call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def matmul_peak(products: Iterable[Callable[[], None]], size: int, repeats: int = 5) -> float:
    """Returns the operations per second of the fastest of several products of matrices of `size` x `size`.

    Args:
      products: functions that multiply once, of several libraries, since the best one defines the machine's peak.
      size: rows and columns.
      repeats: number of timed calls of each.
    """
    seconds = alternate(dict(enumerate(products)), repeats)
    return 2 * size**3 / min(min(taken) for taken in seconds.values())
