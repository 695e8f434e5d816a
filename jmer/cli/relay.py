"""Keeps JAX from seeing that process 0 has ended.

JAX's client of the coordination service ends its process with a stack trace, a few milliseconds after process 0 has
gone, and no function of JAX changes that. The client therefore connects to a port of its own process, from which two
threads carry the bytes to process 0 and back. When process 0 ends they leave the client's connection open, and
`jmer.cli.watch` ends the process.
"""

import contextlib
import socket
import threading
import time

from jmer.cli.watch import split_address

LOOPBACK = "127.0.0.1"

_AGAIN = 0.1


def start_relay(address: str) -> str:
    """Returns HOST:PORT in this process that leads to another address, which may not listen yet."""
    listener = socket.create_server((LOOPBACK, 0))
    threading.Thread(target=_accept, args=[listener, split_address(address)], daemon=True).start()
    return f"{LOOPBACK}:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, address: tuple[str, int]) -> None:
    while True:
        near, _ = listener.accept()
        threading.Thread(target=_connect, args=[near, address], daemon=True).start()


def _connect(near: socket.socket, address: tuple[str, int]) -> None:
    while True:
        try:
            far = socket.create_connection(address)
            break
        except OSError:  # JAX knows how long it wants to wait
            time.sleep(_AGAIN)
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_carry, args=[far, near], daemon=True).start()
    _carry(near, far)
    # JAX has ended the connection.
    far.close()
    near.close()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(1 << 16):
            sink.sendall(received)
