"""Calls of one function in processes of their own, which never outlive the process that started them."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple


class Died(NamedTuple):
    """What is there instead of a result when a process ended in the middle of a call; `reason` says how."""

    reason: str


def in_processes(function: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Generator[tuple[Any, Any]]:
    """Calls a function with every item, some at the same time, each process with its share of the cores.

    When the caller stops early (an exception, Ctrl-C), the processes get SIGTERM once and are waited for.

    Args:
      function: can be imported by its name, as its results can; raises nothing.
      items: what it is called with, in this order.
      jobs: how many processes; one does call after call.

    Yields:
      An item and its result, or `Died`, as soon as it is there.
    """
    context = multiprocessing.get_context("spawn")
    waiting = iter(items)
    busy: dict[Connection, tuple[multiprocessing.Process, Any]] = {}

    def start() -> tuple[Connection, multiprocessing.Process]:
        connection, other_end = context.Pipe()
        process = context.Process(target=_serve, args=(other_end, function, max(1, _cores() // jobs)), daemon=True)
        process.start()
        other_end.close()
        return connection, process

    def give(connection: Connection, process: multiprocessing.Process, item: Any) -> None:
        busy[connection] = (process, item)
        with contextlib.suppress(BrokenPipeError):  # a dead process is noticed where its result is awaited
            connection.send(item)

    try:
        for item in itertools.islice(waiting, jobs):
            give(*start(), item)
        while busy:
            for connection in wait(list(busy)):
                process, item = busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, ConnectionResetError):
                    result = _death(process)
                for following in itertools.islice(waiting, 1):
                    give(*(start() if isinstance(result, Died) else (connection, process)), following)
                if connection not in busy:
                    connection.close()
                yield item, result
    finally:
        for process, _ in busy.values():
            process.terminate()
        for process, _ in busy.values():
            process.join()


def _serve(connection: Connection, function: Callable[[Any], Any], cores: int) -> None:
    """Answers calls until the other end is closed."""
    # Ctrl-C reaches the whole group of a terminal: in a group of its own, a process hears from its parent alone.
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # From this XLA sizes its pool of threads.
    os.environ.setdefault("NPROC", str(cores))
    with contextlib.suppress(EOFError):
        while True:
            try:
                connection.send(function(connection.recv()))
            except KeyboardInterrupt:
                sys.exit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    """Ends this process as a kill would, lest it goes on writing where the parent's successor works."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _death(process: multiprocessing.Process) -> Died:
    process.join()
    if process.exitcode >= 0:
        return Died(f"its process ended with status {process.exitcode}")
    hint = ": is there enough memory for this many --jobs?" if process.exitcode == -signal.SIGKILL else ""
    return Died(f"its process was ended by {signal.Signals(-process.exitcode).name}{hint}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
