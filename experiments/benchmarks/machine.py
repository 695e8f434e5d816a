"""The machine: set-up of device and threads for both sides, and a description."""

import importlib.util
import os
import platform
from pathlib import Path

import jax

from experiments.benchmarks.side import FLOAT32, TENSORFLOAT32
from jmer.errors import UserError
from jmer.process import keep_freed_memory


def prepare(device: str, threads: int | None, *, with_torch: bool, precision: str = FLOAT32) -> None:
    """Sets the device and threads, and keeps freed memory as jmer's programs do if PyTorch does not take part.

    Must be called before the first computation.

    Args:
      device: `cpu` or `gpu`.
      threads: of both sides; None = one per core.
      with_torch: whether PyTorch takes part.
      precision: of the products of a GPU, in `PRECISIONS`; a CPU's are in float32.

    Raises:
      UserError: if PyTorch or a GPU is requested but not available.
    """
    if with_torch and importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: run `pip install -e '.[benchmarks]'`, or give --only-jmer")
    if threads is not None:
        # XLA sizes its thread pool from NPROC.
        os.environ["NPROC"] = str(threads)
    if not with_torch:
        # With PyTorch, kept memory would be fragmented by its large graph, and times would vary.
        keep_freed_memory()
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    else:
        # By default JAX reserves most of the GPU's memory, which PyTorch needs, too.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if jax.default_backend() != "gpu":
            raise UserError("--device gpu: JAX finds no GPU: run `pip install -e '.[gpu]'`, or leave --device cpu")
        # By default JAX rounds to TensorFloat-32, and so do PyTorch's recurrent layers, but not its products.
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == TENSORFLOAT32 else "highest")
    if with_torch:
        _prepare_torch(device, threads, precision)


def _prepare_torch(device: str, threads: int | None, precision: str) -> None:
    import torch

    torch.set_num_threads(threads or cores())
    if device == "gpu":
        if not torch.cuda.is_available():
            raise UserError("--device gpu: PyTorch finds no GPU: install its build for CUDA, or give --only-jmer")
        for library in (torch.backends.cudnn, torch.backends.cuda.matmul):
            library.allow_tf32 = precision == TENSORFLOAT32


def describe(*, with_torch: bool) -> dict[str, str]:
    """Returns the facts about the machine that the results depend on, name -> text."""
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
    """Returns the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_megabytes() -> float | None:
    """Returns the peak resident memory of this process in MiB, None if the system does not report it."""
    # Not ru_maxrss of getrusage, which includes the memory of the parent process at the fork.
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
