"""A whole epoch in one call: batches are gathered on the device, and the steps are scanned there."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jmer.data.packing import EpochPlan
from jmer.data.resident import Resident, gather
from jmer.models import Model
from jmer.training.modulation import Modulation
from jmer.training.step import Metrics, train_step
from jmer.training.train_state import TrainState


def train_epoch(
    state: TrainState,
    resident: Resident,
    plan: EpochPlan,
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    length: int,
    loss_weights: Mapping[str, jax.Array] | None = None,
    modulation: Modulation | None = None,
    accumulation_steps: int = 1,
    rematerialize: bool = False,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes the steps of an epoch; after one that is not finite no other is taken. Pure, like `train_step`.

    Args:
      state: the same on every device.
      resident: the training split, whole on every device.
      plan: this device's rows of each step.
      model, optimizer, loss_weights, modulation, accumulation_steps, rematerialize, axis_name: see `train_step`.
      length: utterances of a row.

    Returns:
      The state, and the metrics of all `S` steps, stacked; those of inactive steps mean nothing.
    """

    # Traced once, for the step and for the shapes that `skip` needs; the program is the same.
    @functools.partial(jax.jit, inline=True)
    def take(state, conversation_ids, active):
        batch = gather(resident, conversation_ids, length)
        return train_step(
            state,
            batch,
            model=model,
            optimizer=optimizer,
            active=active,
            loss_weights=loss_weights,
            modulation=modulation,
            accumulation_steps=accumulation_steps,
            rematerialize=rematerialize,
            axis_name=axis_name,
        )

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
