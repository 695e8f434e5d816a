"""Ports for processes that meet."""

import socket


def free_port():
    """Returns a port of this machine that nothing listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
