"""Where the processes of a run meet: what the flags say, and for the rest what the launcher has told this process.

Launchers tell a process by environment variables how many processes there are and which of them it is. Most also
tell where process 0 runs, or nearly so. jmer reads them itself: JAX knows neither Open MPI 5 nor, without a client of
Kubernetes' API, an indexed job, and takes one process per GPU for granted.
"""

import argparse
import dataclasses
import re
import socket
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jmer.cli.local_devices import local_devices
from jmer.cli.tpu_hosts import find_hosts
from jmer.errors import UserError

AUTO = "auto"
START_TIMEOUT = 300
HEARTBEAT_TIMEOUT = 100

Environment = Mapping[str, str]

# Ports that other programs rarely take, as JAX chooses them.
_FIRST_PORT, _PORTS = 61440, 4096
_TPU_PORT = 8482
_KUBERNETES_PORT = 55527

_NEEDED = "several processes need --coordinator, --processes (their number) and --process (its index)"
_NO_LAUNCHER = (
    "there is no launcher that jmer knows (SLURM's srun, Open MPI's mpirun, an indexed job of Kubernetes, a TPU pod): "
    "give --coordinator HOST:PORT of process 0, --processes (their number) and --process (its index)"
)
_NO_HOST = "this mpirun does not tell where process 0 runs: give --coordinator HOST:PORT"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that work together, as one of them sees them.

    Attributes:
      coordinator: HOST:PORT of process 0.
      processes: how many there are.
      process: the index of this one.
      local_devices: indices of the accelerators that this process takes among those that it sees; None = all.
      start_timeout: seconds to wait for the other processes.
      heartbeat_timeout: seconds after which a process that does not answer is taken for dead.
    """

    coordinator: str
    processes: int
    process: int
    local_devices: tuple[int, ...] | None = None
    start_timeout: int = START_TIMEOUT
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT


class _Told(NamedTuple):
    """What a launcher tells; None = nothing.

    Attributes:
      coordinator: HOST:PORT of process 0.
      processes: how many there are.
      process: the index of this one.
      lacking: what the launcher does not tell, with the remedy, as a sentence.
    """

    coordinator: str | None
    processes: int | None
    process: int | None
    lacking: str = ""


def find_cluster(options: argparse.Namespace, environment: Environment) -> Cluster | None:
    """Returns the processes that work together, None for a process by itself.

    Args:
      options: the flags of `jmer.cli.flags.add_process_flags`.
      environment: the variables of this process.

    Raises:
      UserError: if they say too little, or what cannot be.
    """
    given = (options.coordinator, options.processes, options.process)
    if options.coordinator is None:
        if any(x is not None for x in (options.processes, options.process, options.local_devices)):
            raise UserError(_NEEDED)
        return None
    if options.coordinator != AUTO and not _is_address(options.coordinator):
        raise UserError(f"--coordinator is '{options.coordinator}': give HOST:PORT of process 0, or auto")
    told = _Told(*given) if None not in given and options.coordinator != AUTO else _ask_launchers(environment)
    coordinator = told.coordinator if options.coordinator == AUTO else options.coordinator
    processes = told.processes if options.processes is None else options.processes
    process = told.process if options.process is None else options.process
    if coordinator is None or processes is None or process is None:
        raise UserError(f"--coordinator auto: {told.lacking}" if options.coordinator == AUTO else _NEEDED)
    if not 0 <= process < processes:
        raise UserError(f"--process is {process}, but the {processes} processes are numbered from 0")
    own = local_devices(environment) if options.local_devices is None else options.local_devices
    return Cluster(
        coordinator,
        processes,
        process,
        own,
        options.start_timeout,
        options.heartbeat_timeout,
    )


def _is_address(text: str) -> bool:
    found = re.fullmatch(r".+:(\d+)", text)
    return found is not None and int(found[1]) < 2**16


def _ask_launchers(environment: Environment) -> _Told:
    """Returns what the launcher tells."""
    found = filter(None, (ask(environment) for ask in LAUNCHERS))
    return next(found, _Told(None, None, None, _NO_LAUNCHER))


def _variables(environment: Environment) -> _Told | None:
    """Returns what `JAX_COORDINATOR_ADDRESS` and its companions say, as Kubeflow's trainer sets them."""
    if "JAX_COORDINATOR_ADDRESS" not in environment:
        return None
    address = environment["JAX_COORDINATOR_ADDRESS"]
    if not _is_address(address):
        address = f"{address}:{environment.get('JAX_COORDINATOR_PORT', _KUBERNETES_PORT)}"
    return _Told(
        address,
        _number(environment, "JAX_NUM_PROCESSES"),
        _number(environment, "JAX_PROCESS_ID"),
        "JAX_COORDINATOR_ADDRESS is set alone: set JAX_NUM_PROCESSES and JAX_PROCESS_ID too, or give --processes "
        "(their number) and --process (its index)",
    )


def _open_mpi(environment: Environment) -> _Told | None:
    """Returns what mpirun of Open MPI tells: version 4 its own address, 5 the name of its host. Process 0 runs there.

    >>> _open_mpi({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    ...     "OMPI_MCA_orte_hnp_uri": "1222115328.0;tcp://192.0.2.2:45425"})[:3]
    ('192.0.2.2:61511', 2, 1)
    """
    processes, process = (_number(environment, f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK"))
    if processes is None or process is None:
        return None
    of_4 = re.search(r"tcp://([^,:]+)|tcp6://\[([^,\]]+)", environment.get("OMPI_MCA_orte_hnp_uri", ""))
    of_5 = re.match(r"prterun-(.+)-\d+@", environment.get("PMIX_NAMESPACE", ""))
    host = None
    if environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == environment["OMPI_COMM_WORLD_SIZE"]:
        host = "127.0.0.1"
    elif of_4:
        host = of_4[1] or f"[{of_4[2]}]"
    elif of_5:
        host = of_5[1]
    job = (environment.get("OMPI_MCA_orte_hnp_uri") or environment.get("PMIX_NAMESPACE", "")).partition(";")[0]
    return _Told(
        host and f"{host}:{_port(environment, zlib.crc32(job.encode()))}",
        processes,
        process,
        f"{_NO_HOST} --processes $OMPI_COMM_WORLD_SIZE --process $OMPI_COMM_WORLD_RANK",
    )


def _other_mpi(environment: Environment) -> _Told | None:
    """Returns what mpirun of MPICH, Intel MPI and others tells."""
    processes, process = _number(environment, "PMI_SIZE"), _number(environment, "PMI_RANK")
    if processes is None or process is None:
        return None
    return _Told(None, processes, process, f"{_NO_HOST} --processes $PMI_SIZE --process $PMI_RANK")


def _slurm(environment: Environment) -> _Told | None:
    """Returns what srun tells; a batch script without srun is one process.

    >>> told = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "gpu[03-04,9],b1", "SLURM_NTASKS": "3", "SLURM_PROCID": "2"}
    >>> _slurm(told)[:3]
    ('gpu03:61447', 3, 2)
    """
    if "SLURM_JOB_ID" not in environment or "SLURM_PROCID" not in environment:
        return None
    nodes = environment.get("SLURM_STEP_NODELIST")
    if nodes is None:
        return _Told(None, None, None, "this process of SLURM was not started by srun: put srun before the command")
    processes = _number(environment, "SLURM_STEP_NUM_TASKS") or _number(environment, "SLURM_NTASKS")
    job, step = _number(environment, "SLURM_JOB_ID") or 0, _number(environment, "SLURM_STEP_ID") or 0
    # Another step of the job may run on the same node.
    address = f"{_first_node(nodes)}:{_port(environment, job + 1009 * step)}"
    return _Told(address, processes, _number(environment, "SLURM_PROCID"))


def _first_node(nodes: str) -> str:
    """Returns the first of SLURM's nodes.

    >>> _first_node("rack[2-3]n[07,9],login")
    'rack2n07'
    """
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0] if first else nodes)


def _tpu(environment: Environment) -> _Told | None:
    """Returns what Google Cloud tells a TPU's hosts."""
    hosts = find_hosts(environment)
    if hosts is None:
        return None
    return _Told(f"{hosts.first}:{environment.get('JAX_COORDINATOR_PORT', _TPU_PORT)}", hosts.hosts, hosts.host)


def _kubernetes(environment: Environment) -> _Told | None:
    """Returns what an indexed job of Kubernetes tells a pod: its index, and its own name, which ends in the index."""
    process = _number(environment, "JOB_COMPLETION_INDEX")
    if process is None:
        return None
    host, _, domain = socket.getfqdn().partition(".")
    job = re.fullmatch(rf"(.+)-{process}", host)
    if not job or not domain:
        return _Told(
            None,
            _number(environment, "JAX_NUM_PROCESSES"),
            process,
            f"the name of this pod ({socket.getfqdn()}) does not tell where process 0 runs: give the job a headless "
            "service (subdomain), or --coordinator HOST:PORT --processes N --process $JOB_COMPLETION_INDEX",
        )
    return _Told(
        f"{job[1]}-0.{domain}:{environment.get('JAX_COORDINATOR_PORT', _KUBERNETES_PORT)}",
        _number(environment, "JAX_NUM_PROCESSES"),
        process,
        "an indexed job of Kubernetes does not tell how many processes there are: add --processes (its completions)",
    )


LAUNCHERS: tuple[Callable[[Environment], _Told | None], ...] = (
    _variables,
    _open_mpi,
    _slurm,
    _tpu,
    _kubernetes,
    _other_mpi,
)
"""Each returns what it has told this process, None if it has not started it; mpirun may itself run under SLURM."""


def _port(environment: Environment, job: int) -> str:
    """Returns the port of process 0: the same on all processes of a job, and rarely that of another job."""
    return environment.get("JAX_COORDINATOR_PORT") or str(_FIRST_PORT + job % _PORTS)


def _number(environment: Environment, name: str) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise UserError(f"the environment has {name}={text}: expected a number; unset it, or give the flags instead")
    return int(text)
