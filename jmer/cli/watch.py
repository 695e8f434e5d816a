"""How the processes of a run meet, watch each other, and end together.

**Meeting.** Every process connects to process 0 at the coordinator's address, and waits there until all have come. JAX
would do so too, but where a process is missing it ends the others with a stack trace.

**Watching.** The connections stay. The operating system closes them however a process ends, keep-alive packets find a
machine that is gone, and messages a process that stands still; process 0 then tells the others, and each ends with one
line. JAX's coordination service takes 100 s to see that a process has died, during which the others wait in a
collective operation, and ends them with a stack trace. A process that ends by an error of its own sends its line first.

**Finishing.** All wait for each other, however much longer process 0 takes to write the results than JAX would wait.

Messages are lines of JSON:

    {"process": 1, "processes": 4, ...}               the first from any other process to process 0, with its versions
    {"refused": "..."}                                the answer if it does not belong to the run
    {"met": true}                                     the answer when all have come
    {"process": 1, "status": 2, "line": "..."}        a process has failed
    {"process": 1, "status": 75, "line": null}        a process is gone (from process 0)
    {"alive": true}                                   from all, at intervals
    {"finished": true}                                this process has finished; from process 0: all have
"""

import abc
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from jmer.command import MISTAKE, show_error
from jmer.errors import LONGEST_LINE, UserError
from jmer.text import printable

EXIT_STATUS = 75
"""Of a process that ends because another one was killed: "temporary failure, try again" in sysexits.h."""

KEEP_ALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 12_000}
"""A machine that does not answer for 12 s is gone."""

AGAIN = "start all again with the same command"
"""What to do when a process was killed."""

# Seconds that a process has to print an error of its own, before the news of another process' error ends it.
_OWN_ERROR = 1.0
# Seconds that process 0 waits for the others to end before it does.
_LAST = 3.0
# Seconds between attempts to connect.
_RETRY = 0.2
# Seconds in which a process that has connected must tell which it is.
_HELLO = 10.0
_LONGEST_MESSAGE = 1 << 16
_ALL = "start all of them, with one HOST:PORT of process 0"


class Failure(NamedTuple):
    """The early end of a process; without a line, it was killed or its machine is gone."""

    process: int
    status: int
    line: str | None


class Watch(abc.ABC):
    """One process' part in watching the others; `meet` makes it."""

    def __init__(self, process: int, processes: int, silence: float):
        self._process = process
        self._processes = processes
        self._silence = silence
        self._failed = False
        self._ending = threading.Lock()

    def _start(self) -> None:
        """Shows the others from now on that this process does not stand still."""

        def beat() -> None:
            while True:
                time.sleep(self._silence / 4)
                self._broadcast(alive=True)

        threading.Thread(target=beat, daemon=True).start()

    @abc.abstractmethod
    def _broadcast(self, **message: Any) -> None:
        """Sends a message to all that this process is connected to."""

    def fail(self, status: int, lines: Sequence[str]) -> NoReturn:
        """Prints an error of this process' own, and ends it and all others."""
        self._failed = True
        show_error(lines)
        self._spread(Failure(self._process, status, "".join(lines[:1])[:LONGEST_LINE]))
        sys.stdout.flush()
        self._exit(status)

    @abc.abstractmethod
    def finish(self) -> None:
        """Waits until all processes have finished."""

    @abc.abstractmethod
    def _spread(self, failure: Failure) -> None:
        """Tells the others, as far as it is this process that tells them."""

    def _exit(self, status: int) -> NoReturn:
        """Ends this process without the handlers of exit, which would wait for one that is gone."""
        os._exit(status)

    def _end(self, failure: Failure) -> None:
        """Ends this process since another one has ended early."""
        if not self._ending.acquire(blocking=False):
            return
        self._spread(failure)
        if failure.line is not None:
            time.sleep(_OWN_ERROR)
        if not self._failed:
            os.write(2, f"{describe(failure, self._processes)}\n".encode(errors="backslashreplace"))
            self._exit(failure.status)


def meet(
    address: str, process: int, processes: int, *, timeout: float, silence: float, versions: Mapping[str, str]
) -> Watch:
    """Waits until all processes have come, and starts to watch them.

    Args:
      address: HOST:PORT of process 0. The port is free again afterwards.
      process: the index of this process.
      processes: how many there are.
      timeout: seconds to wait.
      silence: seconds after which a process that sends nothing is taken for dead.
      versions: of software that must be the same in all processes.

    Raises:
      UserError: if some do not come in time, or do not belong together.
    """
    hello = {"process": process, "processes": processes, **versions}
    if process:
        return _Member(process, processes, silence, _join(address, hello, timeout))
    hub = _Hub(processes, silence, hello)
    hub.gather(address, timeout)
    return hub


def describe(failure: Failure, processes: int) -> str:
    """Returns the line that a process prints when another one has ended early.

    >>> print(describe(Failure(1, 75, None), 2))
    error: another process ended (process 1 of 2, killed or unreachable): start all again with the same command
    >>> print(describe(Failure(0, 2, "cannot write runs/a"), 4))
    error: another process ended (process 0 of 4: cannot write runs/a): start all again with the same command
    """
    why = ", killed or unreachable" if failure.line is None else f": {printable(failure.line)}"
    return f"error: another process ended (process {failure.process} of {processes}{why}): {AGAIN}"


class _Member(Watch):
    """The part of any process but 0."""

    def __init__(self, process: int, processes: int, silence: float, connection: "_Connection"):
        super().__init__(process, processes, silence)
        self._connection = connection
        self._all_finished = threading.Event()
        connection.keep_alive(silence)
        self._start()
        threading.Thread(target=self._listen, daemon=True).start()

    def finish(self) -> None:
        self._connection.send(finished=True)
        self._all_finished.wait()

    def _broadcast(self, **message: Any) -> None:
        self._connection.send(**message)

    def _spread(self, failure: Failure) -> None:
        if failure.process == self._process:
            self._broadcast(**failure._asdict())

    def _listen(self) -> None:
        message = self._connection.receive() or Failure(0, EXIT_STATUS, None)._asdict()
        if "finished" in message:
            self._all_finished.set()
        else:
            self._end(Failure(**message))


def _join(address: str, hello: Mapping[str, Any], timeout: float) -> "_Connection":
    """Returns a connection to process 0 when all have come; tries again until it is there."""
    host, port = split_address(address)
    end = time.monotonic() + timeout
    reason = "nothing answers there"
    while (left := end - time.monotonic()) > 0:
        try:
            connection = _Connection(socket.create_connection((host, port), timeout=left))
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(_RETRY, left))
            continue
        connection.send(**hello)
        answer = connection.receive()
        if answer and "refused" in answer:
            raise UserError(answer["refused"])
        if answer and "line" in answer:
            raise UserError(f"process 0 ended ({answer['line']})")
        if answer and "met" in answer:
            return connection
        connection.close()
        if time.monotonic() >= end:
            reason = "process 0 is there, but not all others"
        else:  # another program, or process 0 of a run that is about to end
            reason = "what answers there is not process 0 of this run"
            time.sleep(_RETRY)
    raise UserError(f"process {hello['process']} waited {timeout:g} s at {address} ({reason}): {_ALL}")


class _Hub(Watch):
    """The part of process 0, with a thread for each of the others."""

    def __init__(self, processes: int, silence: float, hello: Mapping[str, Any]):
        super().__init__(0, processes, silence)
        self._hello = hello
        self._members: dict[int, _Connection] = {}
        self._refused: str | None = None
        self._met = False
        self._finished: set[int] = set()
        self._changed = threading.Condition()

    def gather(self, address: str, timeout: float) -> None:
        """Waits for the others."""
        listener = _listener(address)
        accepting = threading.Thread(target=self._accept, args=[listener], daemon=True)
        accepting.start()
        with self._changed:
            self._changed.wait_for(lambda: self._refused or self._all_are_here(), timeout)
            self._met = True
            line = self._refused
            if not line and not self._all_are_here():
                missing = ", ".join(str(i) for i in range(1, self._processes) if i not in self._members)
                waited = f"process 0 waited {timeout:g} s at {address}"
                line = f"{waited} for {missing} of the {self._processes} processes: {_ALL}"
            self._failed = line is not None
        # As soon as the others know, they connect there to JAX's service.
        accepting.join()
        with self._changed:
            for connection in self._members.values():
                connection.keep_alive(self._silence)
            self._broadcast(**({"met": True} if line is None else Failure(0, MISTAKE, line)._asdict()))
        if line is not None:
            raise UserError(line)
        self._start()

    def finish(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._members.keys() <= self._finished)
            self._broadcast(finished=True)

    def _all_are_here(self) -> bool:
        return len(self._members) == self._processes - 1

    def _spread(self, failure: Failure) -> None:
        with self._changed:
            self._broadcast(**failure._asdict())

    def _exit(self, status: int) -> NoReturn:
        # The others end by what they are told, not by the end of this process.
        with self._changed:
            self._changed.wait_for(lambda: not self._members, timeout=_LAST)
        super()._exit(status)

    def _broadcast(self, **message: Any) -> None:
        for connection in list(self._members.values()):
            connection.send(**message)

    def _accept(self, listener: socket.socket) -> None:
        """Takes connections until all have come, and frees the port."""
        listener.settimeout(_RETRY)
        with listener:
            while not self._met:
                with contextlib.suppress(TimeoutError):
                    connection = _Connection(listener.accept()[0])
                    threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: "_Connection") -> None:
        """Takes what one of the others sends until it ends."""
        process = self._admit(connection)
        if process is None:
            connection.close()
            return
        told = False
        while message := connection.receive():
            if "finished" in message:
                with self._changed:
                    self._finished.add(process)
                    self._changed.notify_all()
            elif not told:
                told = True
                threading.Thread(target=self._end, args=[Failure(**message)]).start()
        with self._changed:
            del self._members[process]
            self._changed.notify_all()
            early = self._met and process not in self._finished
        if early:
            self._end(Failure(process, EXIT_STATUS, None))

    def _admit(self, connection: "_Connection") -> int | None:
        """Returns the index of the process at the other end; None if it does not belong to the run."""
        hello = connection.receive(_HELLO)
        if not hello or not isinstance(process := hello.get("process"), int):
            return None
        with self._changed:
            if self._met:
                return None
            if not 0 < process < self._processes or process in self._members:
                connection.send(
                    refused=f"two processes were started as process {process}: give each an index of its own"
                )
                return None
            for name, value in self._hello.items():
                if name != "process" and hello.get(name) != value:
                    other = f"process {process} has {name} {hello.get(name)}"
                    self._refused = f"{other}, process 0 has {value}: start all processes alike"
                    connection.send(refused=self._refused)
            if not self._refused:
                # Until all have come, no one sends anything.
                connection.keep_alive(None)
                self._members[process] = connection
            self._changed.notify_all()
        return None if self._refused else process


class _Connection:
    """Messages over a socket."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._lines = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, **message: Any) -> None:
        """Sends a message. If the other side is gone, the thread that listens to it sees it too."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Waits for a message; None if the other side is gone, is none of jmer's, or takes too long."""
        try:
            if timeout is not None:
                self._socket.settimeout(timeout)
            message: Any = {"alive": True}
            while isinstance(message, dict) and "alive" in message:
                line = self._lines.readline(_LONGEST_MESSAGE)
                message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def keep_alive(self, silence: float | None) -> None:
        """Waits so many seconds for each message from now on, unless the machine at the other end is gone."""
        self._socket.settimeout(silence)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def close(self) -> None:
        """Ends the connection."""
        self._lines.close()
        self._socket.close()


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port.

    >>> split_address("[fd00::2]:1234"), split_address("node1:80")
    (('fd00::2', 1234), ('node1', 80))
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind_address(address: str) -> str:
    """Returns where process 0 listens, which others find at an address: all interfaces, unless one is named."""
    return os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or f"[::]:{split_address(address)[1]}"


def _listener(address: str) -> socket.socket:
    """Listens where JAX's coordination service will."""
    host, port = split_address(bind_address(address))
    try:
        if host == "::" and socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        host = "" if host == "::" else host
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen at port {port} ({error.strerror}): choose another in --coordinator") from error
