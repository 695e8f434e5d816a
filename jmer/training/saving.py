"""After which epochs a checkpoint is saved: a fast device trains an epoch in less time than it takes to save one."""

import contextlib
import time
from collections.abc import Iterator

from jmer.training.parallel import main_process_has


class SavingTime:
    """Keeps the time of saving within a share of a run's time, see `training.save_share`.

    Attributes:
      seconds: that saving has taken.
    """

    def __init__(self, share: float):
        """Takes the largest share; 1 = every epoch is saved."""
        self._share = share
        self._last: float | None = None
        self._ended = 0.0
        self.seconds = 0.0

    def is_over(self) -> bool:
        """Returns whether enough time has passed since the last save; all processes must ask, and hear the same."""
        if self._share == 1 or self._last is None:
            return True
        since = time.perf_counter() - self._ended
        return main_process_has(self._last <= self._share * (self._last + since))

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measures the block, in which is saved."""
        began = time.perf_counter()
        yield
        self._ended = time.perf_counter()
        self._last = self._ended - began
        self.seconds += self._last
