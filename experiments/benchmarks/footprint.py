"""Memory and compile time of a training step, each side in a fresh process."""

import contextlib
from typing import NamedTuple

import jax

from experiments.benchmarks import machine
from experiments.benchmarks.cases import make_case
from experiments.benchmarks.clock import timed
from experiments.benchmarks.jax_side import JaxSide
from experiments.benchmarks.side import JMER
from experiments.grid.processes import Died, in_processes


class Request(NamedTuple):
    """The step to measure: a case's model, shape and size, the side (`jmer` or `PyTorch`), and the program's flags."""

    model: str
    shape: str
    smoke: bool
    side: str
    device: str
    threads: int | None
    precision: str


class Footprint(NamedTuple):
    """Memory and compile time of a training step.

    Attributes:
      loaded_megabytes: peak resident memory (2^20 bytes) before the network is built, mostly of the libraries.
      peak_megabytes: the same after the step. With a GPU both are of its memory; None = unknown on this system.
      compile_seconds: tracing, lowering and compiling the step without the persistent cache; None for PyTorch.
    """

    loaded_megabytes: float | None
    peak_megabytes: float | None
    compile_seconds: float | None


def footprint(request: Request) -> Footprint | Died:
    """Measures in a process of its own; returns `Died` if it fails, for instance for lack of memory."""
    with contextlib.closing(in_processes(measure, [request], jobs=1)) as answers:
        _, found = next(answers)
        return found


def measure(request: Request) -> Footprint:
    """Measures in this process, which should be fresh."""
    jax.config.update("jax_enable_compilation_cache", False)
    is_jmer = request.side == JMER
    machine.prepare(request.device, request.threads, with_torch=not is_jmer, precision=request.precision)
    case = make_case(request.model, request.shape, smoke=request.smoke, precision=request.precision)
    loaded, seconds = _peak_megabytes(request), None
    if is_jmer:
        side = JaxSide(case)
        batch = side.place(case.packed)
        seconds = timed(lambda: side.compile(batch))
    else:
        from experiments.benchmarks.torch_side import TorchSide

        side = TorchSide(case, request.device)
        batch = side.place(case.padded)
    side.train(batch)
    side.wait()
    return Footprint(loaded, _peak_megabytes(request), seconds)


def _peak_megabytes(request: Request) -> float | None:
    if request.device == "cpu":
        return machine.peak_megabytes()
    if request.side == JMER:
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    import torch

    return torch.cuda.max_memory_allocated() / 2**20
