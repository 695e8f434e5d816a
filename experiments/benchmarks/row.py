"""A row of the table: all measurements of one model on one shape."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from experiments.benchmarks.cases import Case, epoch_pipeline
from experiments.benchmarks.clock import alternate
from experiments.benchmarks.device_time import device_seconds
from experiments.benchmarks.epoch import Epoch, run_epoch
from experiments.benchmarks.footprint import Footprint, Request, footprint
from experiments.benchmarks.jax_side import JaxSide
from experiments.benchmarks.side import BFLOAT16, COMPILED, FLOAT32, JMER, PYTORCH, TENSORFLOAT32, Side
from experiments.grid.processes import Died
from jmer.data.batching import real_fraction
from jmer.errors import UserError

TOLERANCES = {FLOAT32: 1e-4, TENSORFLOAT32: 1e-2, BFLOAT16: 1e-4}
"""Precision -> relative difference of the sides' losses."""

SEVERAL = "several"
# A single conversation takes milliseconds, so disturbances have more weight.
LATENCIES_PER_REPEAT = 5


class Options(NamedTuple):
    """The flags of the program."""

    repeats: int
    device: str
    threads: int | None
    with_torch: bool
    torch_compile: bool
    epoch: bool
    seeds: int
    precision: str


@dataclasses.dataclass(frozen=True)
class Row:
    """The measurements of a case; mappings are keyed by the names of sides.

    Attributes:
      model, shape: names.
      utterances: number of real utterances in the batch.
      useful_shares: share of the batch's positions that hold an utterance.
      single: number of utterances of the single conversation.
      flops_per_utterance: of matrix products in jmer's training step on the single conversation.
      training, inference, latency: seconds of each repetition of a training step on the batch, of its prediction, and
        of the prediction of the single conversation.
      footprints: memory and compile time of a step in a fresh process.
      losses: on the batch, before any step and without dropout.
      busy: share of a training step in which the GPU works; empty = there is none, or its profiler tells nothing.
      seeds: seconds of a step of several seeds in one program, and of one seed in turn; empty = not measured.
      epochs: measurements of an epoch; empty = not measured.
    """

    model: str
    shape: str
    utterances: int
    useful_shares: Mapping[str, float]
    single: int
    flops_per_utterance: float
    training: Mapping[str, Sequence[float]]
    inference: Mapping[str, Sequence[float]]
    latency: Mapping[str, Sequence[float]]
    footprints: Mapping[str, Footprint | Died]
    losses: Mapping[str, float]
    busy: Mapping[str, float]
    seeds: Mapping[str, Sequence[float]]
    epochs: Mapping[str, Epoch]


def measure_row(case: Case, options: Options) -> Row:
    """Measures a case.

    Raises:
      UserError: if the sides compute different losses, or torch.compile fails.
    """
    footprints = {
        side: footprint(
            Request(case.model, case.shape, case.smoke, side, options.device, options.threads, options.precision)
        )
        for side in (JMER, *([PYTORCH] if options.with_torch else []))
    }
    ours = JaxSide(case)
    others = _torch_sides(case, ours, options) if options.with_torch else []
    sides = [ours, *others]
    batches = {side.name: side.place(case.batch(side.name)) for side in sides}
    singles = {side.name: side.place(case.single) for side in sides}
    losses = {side.name: side.loss(batches[side.name]) for side in sides if side.name != COMPILED}
    check_same_loss(case, losses, TOLERANCES[options.precision])

    def calls(method: str, inputs: Mapping) -> dict:
        return {side.name: _blocking(side, method, inputs[side.name]) for side in sides}

    if options.torch_compile:
        _check_compiles(case, calls("train", batches)[COMPILED])
    training = alternate(calls("train", batches), options.repeats)
    working = {}
    if options.device == "gpu":
        working = {name: device_seconds(call) for name, call in calls("train", batches).items()}
    busy = {name: seconds / median(training[name]) for name, seconds in working.items() if seconds is not None}
    inference = alternate(calls("infer", batches), options.repeats)
    latency = alternate(calls("infer", singles), LATENCIES_PER_REPEAT * options.repeats)
    seeds = {}
    if options.seeds > 1:
        both = {JMER: ours, SEVERAL: ours.several(options.seeds)}
        seeds = alternate({n: _blocking(side, "train", batches[JMER]) for n, side in both.items()}, options.repeats)
    epochs = {}
    if options.epoch:
        pipeline = epoch_pipeline(case)
        epochs = {side.name: run_epoch(side, pipeline) for side in sides if side.name != COMPILED}
    return Row(
        model=case.model,
        shape=case.shape,
        utterances=case.utterances,
        useful_shares={side.name: real_fraction([case.batch(side.name)]) for side in sides},
        single=case.single.mask.size,
        flops_per_utterance=ours.flops_per_utterance(),
        training=training,
        inference=inference,
        latency=latency,
        footprints=footprints,
        losses=losses,
        busy=busy,
        seeds=seeds,
        epochs=epochs,
    )


def check_same_loss(case: Case, losses: Mapping[str, float], tolerance: float) -> None:
    """Raises UserError if the loss of a side differs from jmer's by more than `tolerance`, relatively."""
    ours = losses[JMER]
    for side, loss in losses.items():
        if not abs(loss - ours) <= tolerance * abs(ours):
            raise UserError(
                f"{case.model} on {case.shape}: the loss is {ours:.7g} in jmer and {loss:.7g} in {side}, so times "
                f"would compare different computations: see tests/test_plain_torch_{case.model}.py"
            )


def _torch_sides(case: Case, ours: JaxSide, options: Options) -> list[Side]:
    from experiments.benchmarks.torch_side import TorchSide

    compiled = (False, True) if options.torch_compile else (False,)
    variables = ours.variables()
    return [TorchSide(case, options.device, variables=variables, compiled=how) for how in compiled]


def _blocking(side: Side, method: str, batch) -> Callable[[], None]:
    def call() -> None:
        getattr(side, method)(batch)
        side.wait()

    return call


def _check_compiles(case: Case, call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:  # a compiler's back end can raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"torch.compile fails on {case.model}, {type(error).__name__}: {reason}: omit --torch-compile"
        ) from error
