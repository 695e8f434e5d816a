"""Times, taken in turn, so that what else the machine does falls on all sides alike."""

import time
from collections.abc import Callable, Iterable, Mapping

# PyTorch's threads go on spinning for some milliseconds after their work: they would slow the next call down.
REST = 0.01


def alternate(calls: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Times calls in turn, `repeats` times each, each after one that is not timed.

    In training and serving a call follows one of its kind, which left caches and freed memory to it.

    Args:
      calls: name -> what is timed; it returns when its work is done.
      repeats: how often.

    Returns:
      name -> seconds of each call, in their order.
    """
    seconds = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(REST)
            call()
            seconds[name].append(timed(call))
    return seconds


def timed(call: Callable[[], None]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def matmul_peak(products: Iterable[Callable[[], None]], size: int, repeats: int = 5) -> float:
    """Returns the operations per second of the fastest of several products of matrices of `size` x `size`.

    Args:
      products: each multiplies once; those of several libraries, since the machine's peak is the best one's.
      size: rows and columns.
      repeats: timed calls of each.
    """
    seconds = alternate(dict(enumerate(products)), repeats)
    return 2 * size**3 / min(min(taken) for taken in seconds.values())
