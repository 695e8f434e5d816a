"""One training step on one device, which is all of them if there is one device."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jmer.batch import Batch
from jmer.models import Model
from jmer.training.gradient import Gradient
from jmer.training.modulation import Modulation
from jmer.training.train_state import TrainState


@struct.dataclass
class Metrics:
    """Sums over a batch, the same on all devices.

    Attributes:
      loss: float32, the weighted sum of the terms' means.
      terms: loss term -> (sum, count), float32 scalars; their quotient is the term's mean. The classifiers of a
        modulation have terms too, `classifier_<modality>`, which are no part of the loss.
      confusion: int32 `[C, C]`, gold in rows, predicted in columns, over labelled utterances.
      finite: bool, whether the loss terms, the gradient and the network after the step were finite; if not, the state
        did not change.
    """

    loss: jax.Array
    terms: Mapping[str, tuple[jax.Array, jax.Array]]
    confusion: jax.Array
    finite: jax.Array


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    active: jax.Array | bool = True,
    loss_weights: Mapping[str, jax.Array] | None = None,
    modulation: Modulation | None = None,
    accumulation_steps: int = 1,
    rematerialize: bool = False,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one step. Pure: the same numbers unmapped, or mapped over any number of devices.

    Each device differentiates its partial loss (its own sums over the counts of all devices); the gradients of the
    partial losses add up to that of the loss. Random draws depend on the step and on the ids of the rows
    (`Batch.row_ids`).

    Args:
      state: the same on every device.
      batch: this device's rows.
      model, optimizer: what `state` was created with.
      active: False = the state does not change.
      modulation: of the gradient, which `state` was created with.
      loss_weights: field of the loss -> float32 scalar, in place of its value (`ModelSpec.loss_weights`).
      accumulation_steps, rematerialize: see `jmer.training.gradient.Gradient`.
      axis_name: name of the mapped axis; None = unmapped.
    """
    gradient = Gradient(model, loss_weights, modulation, axis_name, accumulation_steps, rematerialize)
    own, model_state = gradient.of_batch(state, batch)
    total = own if axis_name is None else jax.lax.psum(own, axis_name)
    gradients, terms = total.gradients, dict(total.terms)
    guiding = state.modulation
    if modulation:
        gradients, guiding = modulation.modulate(guiding, state.params, gradients, total.head_gradients, total.guides)
        terms |= {f"classifier_{modality}": (guide.loss, guide.labelled) for modality, guide in total.guides.items()}
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    after = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        opt_state=opt_state,
        rng=state.rng,
        modulation=guiding,
    )
    finite = _all_finite((gradients, terms, after.params, after.model_state, after.modulation))
    # A choice entry by entry is fused with the update; a conditional would copy the state, in a scan at every step.
    state = jax.tree.map(lambda new, old: jnp.where(finite & active, new, old), after, state)
    return state, Metrics(total.loss, terms, total.confusion, finite)


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()
