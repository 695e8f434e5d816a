"""Worker processes that call one function, and that never outlive the process that started them."""

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
    """The result of a call whose process ended before it returned; `reason` is its exit status or signal."""

    reason: str


def in_processes(function: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Generator[tuple[Any, Any]]:
    """Calls a function with every item in worker processes, which divide the cores among them.

    If the caller stops early (an exception, SIGINT), the workers receive SIGTERM once and are waited for.

    Args:
      function: importable by name; raises nothing, and returns something that can be pickled.
      items: its arguments, in the order of the calls.
      jobs: number of worker processes.

    Yields:
      An item and its result, or `Died`, as soon as the call ends.
    """
    context = multiprocessing.get_context("spawn")
    pending = iter(items)
    busy: dict[Connection, tuple[multiprocessing.Process, Any]] = {}

    def start() -> tuple[Connection, multiprocessing.Process]:
        connection, other_end = context.Pipe()
        process = context.Process(target=_serve, args=(other_end, function, max(1, _cores() // jobs)), daemon=True)
        process.start()
        other_end.close()
        return connection, process

    def assign(connection: Connection, process: multiprocessing.Process, item: Any) -> None:
        busy[connection] = (process, item)
        with contextlib.suppress(BrokenPipeError):  # a dead process is detected where its result is received
            connection.send(item)

    try:
        for item in itertools.islice(pending, jobs):
            assign(*start(), item)
        while busy:
            for connection in wait(list(busy)):
                process, item = busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, ConnectionResetError):
                    result = _death(process)
                for next_item in itertools.islice(pending, 1):
                    assign(*(start() if isinstance(result, Died) else (connection, process)), next_item)
                if connection not in busy:
                    connection.close()
                yield item, result
    finally:
        for process, _ in busy.values():
            process.terminate()
        for process, _ in busy.values():
            process.join()


def _serve(connection: Connection, function: Callable[[Any], Any], cores: int) -> None:
    """Serves calls until the other end of the connection is closed."""
    # SIGINT reaches the whole process group of a terminal; in a group of its own, a worker gets signals from its parent
    # only.
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # XLA sizes its thread pool from NPROC.
    os.environ.setdefault("NPROC", str(cores))
    with contextlib.suppress(EOFError):
        while True:
            try:
                connection.send(function(connection.recv()))
            except KeyboardInterrupt:
                sys.exit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    """Ends this process as SIGKILL would, so that it does not write to folders that another process takes over."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _death(process: multiprocessing.Process) -> Died:
    process.join()
    if process.exitcode >= 0:
        return Died(f"the process ended with status {process.exitcode}")
    hint = ": perhaps there is too little memory for this many --jobs" if process.exitcode == -signal.SIGKILL else ""
    return Died(f"the process was killed by {signal.Signals(-process.exitcode).name}{hint}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
