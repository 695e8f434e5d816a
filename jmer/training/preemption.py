"""Stopping a run between two steps when the process is asked to end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

from jmer.training.parallel import max_over_processes

ENDING = (signal.SIGINT, signal.SIGTERM)
# What schedulers send before a limit of time: taken where nothing else waits for them. Windows has none of them.
_OF_SCHEDULERS = ("SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = (*ENDING, *(getattr(signal, name) for name in _OF_SCHEDULERS if hasattr(signal, name)))


class Interrupted(Exception):
    """A signal stopped training, and everything is saved; `signal` is its number."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


class Preemption:
    """The first signal that asked the process to end.

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
    """Records the first signal within the block that asks the process to end, so that a step can be finished and saved.

    These are Ctrl-C and SIGTERM, and SIGUSR1, SIGUSR2 and SIGXCPU where the program has no handler for them. Those that
    follow change nothing, as some schedulers send them to a job and to each of its processes; only a second Ctrl-C acts
    as usual. The handlers that were there before are restored at the end. Off the main thread, where Python allows no
    handlers, nothing is recorded.
    """
    preemption = Preemption()
    if threading.current_thread() is not threading.main_thread():
        yield preemption
        return
    present = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in present.items() if number in ENDING or handler == signal.SIG_DFL}

    def record(number, _):
        preemption.received = preemption.received or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, before[number])

    for number in before:
        signal.signal(number, record)
    try:
        yield preemption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_undisturbed() -> None:
    """Lets a process that has saved everything end by itself: from now on only Ctrl-C ends it sooner."""
    for number in set(SIGNALS) - {signal.SIGINT}:
        # Other than SIG_IGN, no program that is started inherits it.
        signal.signal(number, lambda *_: None)
