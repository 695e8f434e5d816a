"""A whole epoch in one call: its batches are gathered on the device, and its steps are scanned there."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jmer.data.packing import PlannedBatch
from jmer.data.resident import Resident, gather
from jmer.models.spec import Model
from jmer.training.state import State
from jmer.training.step import Metrics, train_step


@struct.dataclass
class Plan:
    """What an epoch's `S` steps train on.

    Attributes:
      conversation_ids: int32 `[S, B, K]`, positions of each row's conversations in their split, -1 = none.
      computed: bool `[S]`, False where nothing is to be computed.
      active: bool `[S]`, False for a step that leaves the state alone.
    """

    conversation_ids: jax.Array
    computed: jax.Array
    active: jax.Array


def make_plan(planned: Sequence[PlannedBatch], *, rows: int, steps: int, start: int = 0) -> Plan:
    """Returns an epoch's batches as NumPy arrays.

    Args:
      planned: the batches, at least one, all of one shape.
      rows: of every batch.
      steps: how many the plan has; those beyond the batches are not active, so that shorter epochs need no program of
        their own.
      start: the first active step; those before it were taken already.
    """
    slots = planned[0].conversation_ids.shape[1]
    conversation_ids = np.full((steps, rows, slots), -1, np.int32)
    active = np.zeros(steps, bool)
    for step, batch in enumerate(planned[start:], start):
        conversation_ids[step, : len(batch.conversation_ids)] = batch.conversation_ids
        active[step] = True
    return Plan(conversation_ids, active, active)


def train_epoch(
    state: State,
    resident: Resident,
    plan: Plan,
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    length: int,
    weights: Mapping[str, jax.Array] | None = None,
    axis: str | None = None,
) -> tuple[State, Metrics]:
    """Takes an epoch's steps; after one that is not finite no other is taken. Pure, like `train_step`.

    Args:
      state: the same on every device.
      resident: the training split, whole on every device.
      plan: this device's rows of each step.
      model, optimizer: what `state` was created with.
      length: utterances of a row.
      weights: see `train_step`.
      axis: name of the mapped axis; None = unmapped.

    Returns:
      The state, and the metrics of all `S` steps, stacked; those of steps that were not active mean nothing.
    """

    def take(state, conversation_ids, active):
        batch = gather(resident, conversation_ids, length)
        options = {"active": active, "weights": weights, "axis": axis}
        return train_step(state, batch, model=model, optimizer=optimizer, **options)

    def skip(*arguments):
        _, metrics = jax.eval_shape(take, *arguments)
        return arguments[0], jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

    def step(carry, planned):
        state, sound = carry
        active = planned.active & sound
        state, metrics = jax.lax.cond(planned.computed, take, skip, state, planned.conversation_ids, active)
        return (state, sound & (metrics.finite | ~planned.active)), metrics

    (state, _), metrics = jax.lax.scan(step, (state, jnp.bool_(True)), plan)
    return state, metrics
