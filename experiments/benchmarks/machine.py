"""The machine: where both sides run, on how many threads, and what was there."""

import importlib.util
import os
import platform
from pathlib import Path

import jax

from jmer.errors import UserError
from jmer.process import keep_freed_memory


def prepare(device: str, threads: int | None, *, with_torch: bool) -> None:
    """Sets devices, threads and, as jmer's programs do where they are alone, what becomes of freed memory.

    Comes before the first computation.

    Args:
      device: `cpu` or `gpu`.
      threads: of both sides; None = as many as there are cores.
      with_torch: whether PyTorch takes part.

    Raises:
      UserError: if PyTorch or a GPU is wanted and not there.
    """
    if with_torch and importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: run `pip install -e '.[benchmarks]'`, or give --only-jmer")
    if threads is not None:
        # From this XLA sizes its pool of threads.
        os.environ["NPROC"] = str(threads)
    if not with_torch:
        # PyTorch's large graph would leave jmer what is kept in pieces, and so never the same.
        keep_freed_memory()
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    else:
        # JAX would take most of the GPU's memory at once, and leave PyTorch none.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if jax.default_backend() != "gpu":
            raise UserError("--device gpu: JAX finds no GPU: run `pip install -e '.[gpu]'`, or leave --device cpu")
        # Both sides multiply in float32: JAX would round to TensorFloat-32, and PyTorch in its recurrent layers.
        jax.config.update("jax_default_matmul_precision", "highest")
    if with_torch:
        _prepare_torch(device, threads)


def _prepare_torch(device: str, threads: int | None) -> None:
    import torch

    torch.set_num_threads(threads or cores())
    if device == "gpu":
        if not torch.cuda.is_available():
            raise UserError("--device gpu: PyTorch finds no GPU: install its build for CUDA, or give --only-jmer")
        torch.backends.cudnn.allow_tf32 = False


def describe(*, with_torch: bool) -> dict[str, str]:
    """Returns what a reader of the results needs to know of the machine."""
    found = {
        "machine": f"{platform.system()} {platform.machine()}, {cores()} cores",
        "device": jax.devices()[0].device_kind,
        "Python": platform.python_version(),
        "JAX": f"{jax.__version__}, {os.environ.get('NPROC', cores())} threads",
    }
    if with_torch:
        import torch

        found["PyTorch"] = f"{torch.__version__}, {torch.get_num_threads()} threads"
    return found


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_megabytes() -> float | None:
    """Returns the most memory that this program has had resident at a time; None where the system does not tell."""
    # Not getrusage's ru_maxrss: that starts from the memory of the process that started this one.
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
