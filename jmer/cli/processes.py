"""Several processes as one run: they meet before the work, and end together after it or when one of them fails."""

import contextlib
import os
import re
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from absl import logging

import jmer
from jmer.cli.cluster import Cluster
from jmer.cli.relay import LOOPBACK, start_relay
from jmer.cli.watch import AGAIN, EXIT_STATUS, Watch, bind_address, meet
from jmer.command import describe_error, show

# What JAX raises when a connection to another process breaks, in any of its libraries.
_LOST = re.compile(
    r"gloo|nccl|coordination ?service|barrier|heartbeat|connection (reset|closed|refused)|broken pipe|socket closed",
    re.IGNORECASE,
)
_NO_PROXY = "no_grpc_proxy"
# Seconds within which the end of another process is known after a connection to it has broken.
_NEWS = 5.0


@contextlib.contextmanager
def together(cluster: Cluster | None) -> Iterator[None]:
    """Connects this process to the others of the cluster for a block, if it is one of several.

    Whatever ends the block early in one of them ends all: the one that fails prints its own line, the others that of
    `jmer.cli.watch`.

    Raises:
      UserError: if the processes cannot connect.
    """
    if cluster is None:
        yield
        return
    connection = _connect(cluster)
    try:
        yield
        connection.finish()
    except BaseException as error:
        _fail(error, connection)


def _connect(cluster: Cluster) -> Watch:
    """Connects this process to the others, and watches them."""
    import jax

    logging.set_verbosity(logging.FATAL)  # of what JAX logs on the way
    own = f"this is process {cluster.process}"
    show(f"waiting for {cluster.processes} processes at {cluster.coordinator} ({own})")
    watch = meet(
        cluster.coordinator,
        cluster.process,
        cluster.processes,
        timeout=cluster.start_timeout,
        silence=cluster.heartbeat_timeout,
        versions={"jmer": jmer.__version__, "jax": jax.__version__},
    )
    # It would swallow SIGTERM whenever jmer has no handler for it: before training, and after it.
    jax.config.update("jax_enable_preemption_service", False)
    # Even to its own machine, JAX would connect through a proxy.
    jax.config.update("jax_check_proxy_envs", False)
    exempt = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy", "")
    os.environ[_NO_PROXY] = ",".join(filter(None, (exempt, LOOPBACK)))
    try:
        jax.distributed.initialize(
            start_relay(cluster.coordinator),
            cluster.processes,
            cluster.process,
            cluster.local_devices,
            # JAX would look for a launcher once more, for the devices.
            cluster_detection_method="deactivate",
            coordinator_bind_address=bind_address(cluster.coordinator),
            initialization_timeout=cluster.start_timeout,
            # The watch sees sooner that a process stands still, and ends the others without a stack trace.
            heartbeat_timeout_seconds=4 * cluster.heartbeat_timeout,
        )
    except BaseException as error:
        _fail(error, watch)
    return watch


def _fail(error: BaseException, connection: Watch) -> NoReturn:
    """Ends this process and the others; with the line of its own error, unless that is only the end of another one."""
    described = describe_error(error)
    if described is None and _LOST.search(reason := _reason(error)):
        # As a rule another process has ended, and the watch ends this one now.
        time.sleep(_NEWS)
        described = EXIT_STATUS, (f"the connection to another process broke ({reason}): {AGAIN}",)
    if described is None:
        traceback.print_exception(error)
        described = 1, (f"{type(error).__name__}: {error}",)
    connection.fail(*described)


def _reason(error: BaseException) -> str:
    """Returns the messages of an exception and of those that led to it, on one line."""
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(" ".join(str(cause).split()))
        cause = cause.__cause__ or cause.__context__
    return "; ".join(messages)
