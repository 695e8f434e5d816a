"""Which of a machine's accelerators a process takes, from what the launcher tells it.

JAX gives each process of SLURM or Open MPI one GPU, the one whose number is the process' index on its machine. With one
process for four GPUs three would stand idle, and where a process sees its own GPU alone (`--gpus-per-task=1`), it
would look for another one.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from jmer.errors import UserError

VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
GPUS = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver lists the GPUs of the machine."""


def local_devices(environment: Mapping[str, str], folder: Path = GPUS) -> tuple[int, ...] | None:
    """Returns the indices of the GPUs that this process takes among those that it sees, None for all.

    Args:
      environment: the variables of this process.
      folder: has an entry for each GPU of the machine.

    Raises:
      UserError: if the GPUs of the machine cannot be divided among its processes.
    """
    if "JAX_LOCAL_DEVICE_IDS" in environment:  # JAX reads it
        return None
    processes, process = _processes_here(environment)
    if processes == 1:
        return None
    seen = _seen(environment, folder)
    on_machine = environment.get("SLURM_GPUS_ON_NODE", "")
    has_its_own = seen < int(on_machine) if on_machine.isdecimal() else seen == 1
    if seen == 0 or has_its_own:
        return None
    if seen % processes:
        raise UserError(
            f"{processes} processes of this machine cannot divide its {seen} GPUs evenly: start another number of "
            "them, or give each its own (--local-devices)"
        )
    each = seen // processes
    return tuple(range(process * each, (process + 1) * each))


def _seen(environment: Mapping[str, str], folder: Path) -> int:
    """Returns how many GPUs the process sees."""
    for name in VISIBLE:
        if name in environment:
            # What follows -1 is invisible; SLURM had "NoDevFiles" for none.
            names = environment[name].partition("-1")[0].strip(",")
            return 0 if names in ("", "NoDevFiles") else len(names.split(","))
    return len(list(folder.glob("*")))


def _processes_here(environment: Mapping[str, str]) -> tuple[int, int]:
    """Returns how many processes of the run are on this machine, and the index of this one among them.

    >>> _processes_here({"SLURM_STEP_TASKS_PER_NODE": "4(x2),1", "SLURM_NODEID": "1", "SLURM_LOCALID": "3"})
    (4, 3)
    """
    size, rank = (environment.get(f"OMPI_COMM_WORLD_LOCAL_{name}", "") for name in ("SIZE", "RANK"))
    if size.isdecimal() and rank.isdecimal():
        return int(size), int(rank)
    node, task = (environment.get(name, "") for name in ("SLURM_NODEID", "SLURM_LOCALID"))
    counts = [
        int(count)
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
        for _ in range(int(times or 1))
    ]
    if node.isdecimal() and task.isdecimal() and int(node) < len(counts):
        return counts[int(node)], int(task)
    return 1, 0
