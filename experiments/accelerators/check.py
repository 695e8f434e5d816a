"""One compilation, in a process of its own, and the facts about the compiled program."""

import contextlib
import functools
import importlib.metadata
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.accelerators import hlo, thunks
from experiments.accelerators.programs import Lowered, lower
from experiments.accelerators.targets import GPU, TARGETS, devices, prepare
from experiments.accelerators.work import Work, in_loops, loop_counts, step_of_epoch, total
from experiments.grid.processes import Died, in_processes

PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
LONGEST_REASON = 300


class Request(NamedTuple):
    """What to compile.

    Attributes:
      model, shape, program, smoke: see `experiments.accelerators.programs.lower`.
      target: in `TARGETS`.
      timeout: seconds.
    """

    model: str
    shape: str
    program: str
    target: str
    smoke: bool
    timeout: int


class Facts(NamedTuple):
    """The facts about a compiled program.

    Attributes:
      rows, length, steps: see `experiments.accelerators.programs.Lowered`.
      megabytes: memory of a device at peak (2^20 bytes), arguments included.
      operations: of a training step, kernels on a GPU, on a TPU operations such as fusions.
      launches: of a training step on a GPU, with a CUDA graph as one; None on a TPU.
      loops: of a training step: (how many, steps of each); None = not known before they run, counted as one.
      loop_operations: those of `operations` that are in loops.
      cycles, loop_cycles: of a training step, as the TPU's compiler estimates them, and those in loops; None on a GPU.
      collectives, loop_collectives: of a training step, and those in loops.
    """

    rows: int
    length: int
    steps: int | None
    megabytes: float
    operations: int
    launches: int | None
    loops: Sequence[tuple[int, int | None]]
    loop_operations: int
    cycles: int | None
    loop_cycles: int | None
    collectives: int
    loop_collectives: int


class Row(NamedTuple):
    """The outcome of a request.

    Attributes:
      model, shape, program, target, smoke: of the request.
      seconds: of lowering, compiling and reading, or until it failed.
      versions: package -> version.
      error: why it does not compile, in a line; None = it does.
      facts: None = it does not compile.
    """

    model: str
    shape: str
    program: str
    target: str
    smoke: bool
    seconds: float
    versions: Mapping[str, str]
    error: str | None
    facts: Facts | None


def check(request: Request, log: Path) -> Row:
    """Compiles in a new process.

    Args:
      request: what.
      log: file for what the compiler prints; kept if it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with contextlib.closing(in_processes(_compile, [(request, str(log))], jobs=1)) as answers:
        _, row = next(answers)
    if isinstance(row, Died):
        seconds = time.monotonic() - started
        error = death(row, request, log)
        row = Row(*request[:-1], seconds, versions(), error, None)
    if row.error is None:
        log.unlink()
    return row


def versions() -> dict[str, str]:
    """Returns the versions of the packages that compile."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _compile(arguments: tuple[Request, str]) -> Row:
    """Compiles in this process, which must be new."""
    request, log = arguments
    # All that C++ prints, until the process ends.
    with open(log, "w") as file:
        os.dup2(file.fileno(), 2)
    # A compiler's thread does not let Python handle signals; by default this one ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(request.timeout)
    started, error, facts = time.monotonic(), None, None
    program = functools.partial(lower, request.model, request.shape, request.program, smoke=request.smoke)
    try:
        facts = compile_for(request.target, program)
    except Exception as failure:  # a compiler can raise anything
        error = one_line(f"{type(failure).__name__}: {failure}")
    return Row(*request[:-1], time.monotonic() - started, versions(), error, facts)


def compile_for(name: str, program: Callable[[Sequence[jax.Device]], Lowered]) -> Facts:
    """Compiles a program in this process, which must be new: XLA reads its flags once.

    Args:
      name: of the target.
      program: lowers for its devices.
    """
    target = TARGETS[name]
    gpu = target.platform == GPU
    with tempfile.TemporaryDirectory() as dump:
        prepare(target, dump if gpu else None)
        lowered = program(devices(target))
        compiled = lowered.lowered.compile()
        text = compiled.as_text()
        work = thunks.read(Path(dump), text) if gpu else hlo.read(text)
    return _facts(lowered, work, compiled.memory_analysis(), gpu=gpu)


def _facts(lowered: Lowered, work: Work, memory: Any, *, gpu: bool) -> Facts:
    if lowered.steps is not None:
        work = step_of_epoch(work, lowered.steps)
    once, loops = total(work), in_loops(work)
    return Facts(
        rows=lowered.rows,
        length=lowered.length,
        steps=lowered.steps,
        megabytes=peak_bytes(memory) / 2**20,
        operations=once.operations,
        launches=once.launches if gpu else None,
        loops=loop_counts(work),
        loop_operations=loops.operations,
        cycles=None if gpu else once.cycles,
        loop_cycles=None if gpu else loops.cycles,
        collectives=once.collectives,
        loop_collectives=loops.collectives,
    )


def peak_bytes(memory: Any) -> int:
    """Returns what a program needs at once: arguments, results that do not take their place, and all between."""
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


def death(died: Died, request: Request, log: Path) -> str:
    """Returns why a process ended: too late, or with the compiler's last words."""
    if "SIGALRM" in died.reason:
        return f"not compiled within {request.timeout} s"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    fatal = [line for line in lines if re.match(r"F\d{4} ", line)]
    return one_line(f"{died.reason}: {fatal[0]}" if fatal else died.reason)


def one_line(text: str) -> str:
    """Returns a message without line feeds, not longer than a table's cell should be."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + " …"
