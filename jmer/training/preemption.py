"""Stopping a run between two steps when the process is asked to end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

from jmer.training.parallel import max_over_processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal stopped training, and everything is saved; `signal` is its number."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


class Preemption:
    """The first SIGINT or SIGTERM.

    Attributes:
      received: the signal that this process received, None as long as there was none.
    """

    received: signal.Signals | None = None

    @property
    def agreed(self) -> signal.Signals | None:
        """The signal that any of the processes received; all must ask, since saving takes all, at the same step."""
        number = max_over_processes(self.received or 0)
        return signal.Signals(number) if number else None

    def stop(self, saved: str) -> NoReturn:
        """Raises Interrupted with the agreed signal and a message on what was saved."""
        number = self.agreed or signal.SIGTERM
        raise Interrupted(number, f"{number.name}: {saved}")


@contextlib.contextmanager
def catch_preemption() -> Iterator[Preemption]:
    """Records the first Ctrl-C or SIGTERM within the block, so that a step can be finished and saved first.

    A second one acts as usual. The handlers that were there before are restored at the end. Off the main thread, where
    Python allows no handlers, nothing is recorded.
    """
    preemption = Preemption()
    if threading.current_thread() is not threading.main_thread():
        yield preemption
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def record(number, _):
        preemption.received = signal.Signals(number)
        restore()

    for number in before:
        signal.signal(number, record)
    try:
        yield preemption
    finally:
        restore()
