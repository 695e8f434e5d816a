"""The programs that training runs, a step or a whole epoch of a model on a corpus' shape, lowered for devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.cases import Case, epoch_pipeline, make_case
from jmer.data.packing import round_up
from jmer.data.resident import make_resident
from jmer.models import build_model
from jmer.training.epoch import train_epoch
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import EPOCH_SPECS, STEP_SPECS, Parallel
from jmer.training.step import train_step
from jmer.training.train_state import create_train_state

STEP, EPOCH = "step", "epoch"
PROGRAMS = (STEP, EPOCH)


class Lowered(NamedTuple):
    """A program that is ready to be compiled.

    Attributes:
      lowered: what JAX compiles.
      rows, length: of a batch, on all devices together.
      steps: training steps of the program; None = one, without a loop over steps.
    """

    lowered: jax.stages.Lowered
    rows: int
    length: int
    steps: int | None


def lower(model: str, shape: str, program: str, devices: Sequence[jax.Device], *, smoke: bool) -> Lowered:
    """Traces and lowers a program; nothing is computed.

    Args:
      model, shape: see `experiments.benchmarks.cases.make_case`.
      program: `STEP`, on the packed batch of that case, or `EPOCH`, on the shape's corpus in batches of the
        configured size.
      devices: one, or several that divide the rows of each batch.
      smoke: True = tiny.
    """
    mapping = Parallel("jit" if len(devices) == 1 else "shard_map", tuple(devices))
    case = make_case(model, shape, smoke=smoke)
    return (_step if program == STEP else _epoch)(case, mapping)


def _step(case: Case, mapping: Parallel) -> Lowered:
    state, options = _state(case)
    rows, length = case.packed.mask.shape
    rows = round_up(rows, mapping.row_multiple)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), case.packed)
    step = functools.partial(train_step, **options)
    return Lowered(_lowered(mapping, step, STEP_SPECS, (state, batch)), rows, length, None)


def _epoch(case: Case, mapping: Parallel) -> Lowered:
    state, options = _state(case)
    pipeline = epoch_pipeline(case)
    length, seed = pipeline.packing.length, pipeline.config.seed
    resident = make_resident(
        pipeline.examples["train"], pipeline.widths, pipeline.attribute_scales, pipeline.config.data.speakers
    )
    plan = pipeline.epoch_plan(0, seed=seed, row_multiple=mapping.row_multiple)
    epoch = functools.partial(train_epoch, **options, length=length)
    steps, rows, _ = plan.conversation_ids.shape
    return Lowered(_lowered(mapping, epoch, EPOCH_SPECS, (state, resident, plan)), rows, length, steps)


def _state(case: Case) -> tuple[Any, dict[str, Any]]:
    """Returns the shapes of the train state, and what the step needs to know."""
    config = case.config
    model = build_model(config)
    optimizer = make_optimizer(config.optimizer, steps=[1] * config.training.epochs)
    state = jax.eval_shape(lambda: create_train_state(model, optimizer, case.widths, config.seed))
    return state, {"model": model, "optimizer": optimizer}


def _lowered(mapping: Parallel, function: Callable, specs: Sequence[Any], arguments: Sequence[Any]) -> Any:
    def shapes(spec, part):
        place = mapping.sharding(spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), part)

    placed = jax.tree.map(shapes, tuple(specs), tuple(arguments), is_leaf=lambda x: isinstance(x, P))
    return mapping.over_mesh(function, specs).lower(*placed)
