"""Stopping a run between two steps."""

import contextlib
import signal
from collections.abc import Iterator


class Interrupts:
    """Remembers the first SIGINT or SIGTERM.

    Attributes:
      received: the signal, None so far.
    """

    received: signal.Signals | None = None


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Turns the first Ctrl-C or SIGTERM within the block into a note, so that a step is finished and saved first.

    A second one acts as usual. The handlers that were there before are put back at the end.
    """
    heard = Interrupts()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back():
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number, _):
        heard.received = signal.Signals(number)
        put_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield heard
    finally:
        put_back()
