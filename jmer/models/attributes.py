"""Heads for dimensional targets such as valence, for any model: linear in what its classifier reads.

The loss has a term for each: one minus the concordance correlation coefficient over the whole batch, and if it is
wanted the listwise preference (`jmer.losses.listwise_preference`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jmer.batch import Batch
from jmer.layers.initializers import dense
from jmer.losses.concordance import concordance, concordance_moments
from jmer.losses.preference import FORMS, listwise_preference
from jmer.models.checks import check_choice

HEADS = "attribute_heads"
"""Name of the heads' parameters, beside those of the network."""
LISTS = ("batch", "conversation")

# (weight, sum, count), see `jmer.models.spec.LossTerm`.
Term = tuple[float, jax.Array, jax.Array]


@struct.dataclass
class WithAttributes:
    """The output of a network and what the heads make of it.

    Attributes:
      network: the output of the network.
      values: float32 `[B, T, A]`, the ends of the scales at -1 and 1.
    """

    network: Any
    values: jax.Array

    @property
    def logits(self) -> jax.Array:
        """Of the emotions, `[B, T, C]`."""
        return self.network.logits


@dataclasses.dataclass(frozen=True)
class AttributeHeads:
    """The heads of a model, and their loss.

    Attributes:
      names: of `A` attributes, at least one.
      scales: the lower and the upper end of each one's scale.
      concordance_weight: weight of one minus the concordance correlation coefficient of each attribute.
      preference_weight: weight of each attribute's listwise preference.
      preference: its form, see `jmer.losses.listwise_preference`.
      lists: what it orders: the utterances of a `batch`, or those of each `conversation`.
      skips: how many places the utterances that it compares are apart at most.
      skip_epochs: epochs of training after which it compares utterances one place further apart, from neighbours on;
        0 = up to `skips` from the start.
      margin: the smallest difference of labels, on their scale, that it takes for an order; 0 = any.
      skip_steps: the training step from which it compares utterances 1, 2, ... places apart, see `scheduled`; empty =
        all from the start.
    """

    names: tuple[str, ...]
    scales: tuple[tuple[float, float], ...]
    concordance_weight: float = 1.0
    preference_weight: float = 0.0
    preference: str = "exact"
    lists: str = "batch"
    skips: int = 4
    skip_epochs: int = 0
    margin: float = 0.0
    skip_steps: tuple[int, ...] = ()

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_choice("attributes.preference", self.preference, FORMS)
        check_choice("attributes.lists", self.lists, LISTS)

    def scheduled(self, steps: Sequence[int]) -> "AttributeHeads":
        """Returns the heads for a training whose epochs have these numbers of steps."""
        done = [0, *itertools.accumulate(steps)]
        epochs = (k * self.skip_epochs for k in range(self.skips))
        return dataclasses.replace(self, skip_steps=tuple(done[min(epoch, len(steps))] for epoch in epochs))

    def init(self, rng: jax.Array, representation: jax.Array) -> Any:
        """Returns the heads' parameters for a representation `[B, T, D]`."""
        return self._layer(representation).init(rng, representation)["params"]

    def apply(self, params: Any, representation: jax.Array) -> jax.Array:
        """Returns what the heads make of a representation `[B, T, D]`, float32 `[B, T, A]`."""
        values: Any = self._layer(representation).apply({"params": params}, representation)
        return jnp.asarray(values, jnp.promote_types(values.dtype, jnp.float32))

    def _layer(self, representation: jax.Array) -> nn.Dense:
        return dense(len(self.names), representation.shape[-1])

    def on_scales(self, values: jax.Array) -> dict[str, jax.Array]:
        """Returns each attribute's values `[B, T]` on its scale, of values `[B, T, A]` from -1 to 1."""
        return {
            name: low + (high - low) / 2 * (values[..., i] + 1)
            for i, (name, (low, high)) in enumerate(zip(self.names, self.scales, strict=True))
        }

    def terms(
        self, values: jax.Array, batch: Batch, axis: str | None = None, step: jax.Array | None = None
    ) -> dict[str, Term]:
        """Returns the terms of the loss by name, whose sums over devices are those of the whole batch.

        Args:
          values: `[B, T, A]`, of this device's rows.
          batch: with `attributes`.
          axis: mapped axis whose devices hold the rest of the batch; None = unmapped.
          step: of training, int `[]`; None = after it.
        """
        if batch.attributes is None:
            raise ValueError("the batch has no attributes: give `batches` the scales of those that the model learns")
        skip_weights = jnp.ones(self.skips)
        if self.skip_steps and step is not None:
            skip_weights = jnp.asarray(step >= jnp.array(self.skip_steps), float)
        found: dict[str, Term] = {}
        for i, (name, (low, high)) in enumerate(zip(self.names, self.scales, strict=True)):
            predicted, target = values[..., i], batch.attributes[..., i]
            # Labels lie around 0, so that sums around it lose little.
            sums = concordance_moments(predicted, target, where=batch.mask, axis=axis)
            some = jax.lax.stop_gradient(sums[0]) >= 2
            found[f"concordance_{name}"] = _shared(self.concordance_weight, 1 - concordance(sums), some, axis)
            if self.preference_weight:
                loss = listwise_preference(
                    predicted.reshape(-1),
                    target.reshape(-1),
                    form=self.preference,
                    skip_weights=skip_weights,
                    margin=2 * self.margin / (high - low),
                    where=batch.mask.reshape(-1),
                    groups=_conversations(batch) if self.lists == "conversation" else None,
                    axis=axis,
                )
                found[f"preference_{name}"] = _shared(self.preference_weight, loss, some, axis)
        return found


def _shared(weight: float, loss: jax.Array, some: jax.Array, axis: str | None) -> Term:
    """Returns a term of a loss that every device has the whole of, with the gradient of its part: each gives a share.

    Args:
      weight: of the term.
      loss: the whole.
      some: whether there is anything to compare; a mean over batches leaves out those where there is not.
      axis: mapped axis of the devices; None = unmapped.
    """
    devices = 1 if axis is None else jax.lax.axis_size(axis)
    whole = jax.lax.stop_gradient(loss)
    return weight, whole / devices + (loss - whole), some.astype(jnp.float32) / devices


def _conversations(batch: Batch) -> jax.Array:
    """Returns the conversation of each utterance, int `[B T]`, numbered over all devices."""
    if batch.conversation_ids is None:
        raise ValueError("attributes.lists='conversation' needs batch.conversation_ids, got None")
    segment_ids = jnp.zeros_like(batch.labels) if batch.segment_ids is None else batch.segment_ids
    return jnp.take_along_axis(batch.conversation_ids, segment_ids, axis=1).reshape(-1)


def make_heads(section: Mapping[str, Any]) -> AttributeHeads | None:
    """Returns the heads that the section `attributes` of a configuration describes; None if it names no attribute.

    Raises:
      ValueError: if an option has no such value.
    """
    if not section["names"]:
        return None
    ends = iter(section["scales"])
    options = dict(section) | {"names": tuple(section["names"]), "scales": tuple(zip(ends, ends, strict=True))}
    heads = AttributeHeads(**options)
    heads.check()
    return heads


def applied(call: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any, jax.Array | None]:
    """Runs a network and catches its representation: what the layer that gives the logits reads.

    Args:
      call: returns (output with `logits`, anything else).

    Returns:
      What `call` returns, and the representation; None if no layer of the network gives the logits as they are.
    """
    inputs: list[tuple[Any, Any]] = []

    def remember(method: Callable, arguments: tuple, options: Mapping, context: nn.module.InterceptorContext) -> Any:
        result = method(*arguments, **options)
        if arguments and context.method_name == "__call__":
            inputs.append((result, arguments[0]))
        return result

    with nn.intercept_methods(remember):
        output, rest = call()
    # A layer inside another that returns the same array ends first, and is first in the list.
    return output, rest, next((given for result, given in inputs if result is output.logits), None)
