"""The gradient of a batch on one device, of all rows at once or of pieces one after the other."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jmer.batch import Batch
from jmer.models import Model
from jmer.models.encoders import COLLECTION, exposed_encodings
from jmer.training.modulation import HeadResult, Modulation
from jmer.training.train_state import TrainState


@struct.dataclass
class Sums:
    """What rows add to a step: sums over rows, all of which add up over pieces of a batch and over devices.

    Attributes:
      loss: float32 `[]`, the rows' part of the weighted sum of the terms' means.
      gradients: of `loss`, for the network's parameters.
      head_gradients: of the losses of a modulation's classifiers, for their parameters; empty without modulation.
      terms: loss term -> (sum, count).
      guides: modality -> sums of its classifier; empty without modulation.
      confusion: int32 `[C, C]`, see `jmer.training.step.Metrics`.
    """

    loss: jax.Array
    gradients: Any
    head_gradients: Any
    terms: Mapping[str, tuple[jax.Array, jax.Array]]
    guides: Mapping[str, HeadResult]
    confusion: jax.Array


@struct.dataclass
class Counts:
    """What the sums of a batch are divided by: loss term -> count, modality -> its classifier's labelled utterances."""

    terms: Mapping[str, jax.Array]
    guides: Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient of a model's loss, and what else a step adds up over rows.

    Attributes:
      model: the network and its loss.
      loss_weights, modulation, axis_name: see `jmer.training.step.train_step`.
      accumulation_steps: how many pieces of equal rows are computed one after the other, so that only one piece's
        activations are in memory at a time; more than 1 needs a model that `jmer.training.accumulation` admits.
      rematerialize: whether layers are computed again, see `jmer.models.rematerialization`.
    """

    model: Model
    loss_weights: Mapping[str, jax.Array] | None = None
    modulation: Modulation | None = None
    axis_name: str | None = None
    accumulation_steps: int = 1
    rematerialize: bool = False

    def of_batch(self, state: TrainState, batch: Batch) -> tuple[Sums, Any]:
        """Returns the sums over this device's rows, and the model state after the step.

        Args:
          state: the same on every device.
          batch: this device's rows.
        """
        if self.accumulation_steps == 1:
            return self._of_rows(state, batch)
        counts = self.counts(state, batch)
        # Added over devices here, so that nothing passes between devices within the loop.
        everywhere = self._over_devices(counts)
        stacked = jax.tree.map(lambda x: x.reshape(self.accumulation_steps, -1, *x.shape[1:]), batch)

        def add(total: Sums, rows: Batch) -> tuple[Sums, None]:
            sums, _ = self._of_rows(state, rows, everywhere)
            return jax.tree.map(jnp.add, total, sums), None

        first = jax.tree.map(lambda x: x[0], stacked)
        shapes, _ = jax.eval_shape(lambda rows: self._of_rows(state, rows, everywhere), first)
        total, _ = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), stacked)
        terms = {name: (value, counts.terms[name]) for name, (value, _) in total.terms.items()}
        return total.replace(terms=terms), state.model_state

    def counts(self, state: TrainState, batch: Batch) -> Counts:
        """Returns the counts of this device's rows without running the network.

        The loss gets outputs that are NaN, so that a count which depends on them is NaN too.
        """
        output, encodings, _ = jax.eval_shape(lambda: self._run(state, state.params, batch))
        heads = state.modulation.heads if self.modulation else {}
        terms, guides = self._results(state, heads, batch, without_values(output), without_values(encodings))
        return Counts(
            {name: jnp.asarray(term.divisor, jnp.float32) for name, term in terms.items()},
            {modality: guide.labelled for modality, guide in guides.items()},
        )

    def _over_devices(self, counts: Any) -> Any:
        return counts if self.axis_name is None else jax.lax.psum(counts, self.axis_name)

    def _of_rows(self, state: TrainState, rows: Batch, whole: Counts | None = None) -> tuple[Sums, Any]:
        """Returns the sums over rows, and the model state after them.

        Args:
          state: see `of_batch`.
          rows: of this device.
          whole: counts of the whole batch on all devices; None = these rows are all of this device's.
        """

        def mean(value, count, of_whole):
            everywhere = self._over_devices(jax.lax.stop_gradient(count)) if of_whole is None else of_whole
            return value / jnp.where(everywhere > 0, everywhere, 1)

        def partial_loss(params, heads):
            output, encodings, model_state = self._run(state, params, rows)
            found, guides = self._results(state, heads, rows, output, encodings)
            total, terms = jnp.zeros(()), {}
            for name, (weight, value, count) in found.items():
                count = jnp.asarray(count, jnp.float32)
                total += mean(weight * value, count, whole and whole.terms[name])
                terms[name] = (value, count)
            # The classifiers have their own parameters and no influence on the encodings: one gradient serves both.
            objective = total
            for modality, guide in guides.items():
                objective += mean(guide.loss, guide.labelled, whole and whole.guides[modality])
            return objective, (total, output.logits, model_state, terms, guides)

        heads = state.modulation.heads if self.modulation else {}
        differentiated = jax.value_and_grad(partial_loss, argnums=(0, 1), has_aux=True)
        (_, (loss, logits, model_state, terms, guides)), (own, of_heads) = differentiated(state.params, heads)
        return Sums(loss, own, of_heads, terms, guides, _confusion(logits, rows)), model_state

    def _run(self, state: TrainState, params: Any, rows: Batch) -> tuple[Any, dict[str, jax.Array], Any]:
        """Returns the network's output in training, what it exposes for a modulation, and its model state."""
        rng = jax.random.fold_in(state.rng, state.step)
        output, model_state = self.model.apply_in_training(
            params,
            state.model_state,
            rows,
            rng,
            self.axis_name,
            expose=self.modulation is not None,
            rematerialize=self.rematerialize,
        )
        return output, exposed_encodings(model_state.pop(COLLECTION, {})), model_state

    def _results(
        self, state: TrainState, heads: Any, rows: Batch, output: Any, encodings: Any
    ) -> tuple[dict, dict[str, HeadResult]]:
        """Returns the terms of the loss, and what the classifiers of a modulation make of the encodings."""
        terms = self.model.loss_terms(output, rows, self.axis_name, self.loss_weights, state.step)
        return terms, self.modulation.results(heads, encodings, rows) if self.modulation else {}


def without_values(shapes: Any) -> Any:
    """Returns arrays of these shapes that are NaN, or 0 where they are no floats."""
    return jax.tree.map(
        lambda x: jnp.full(x.shape, jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 0, x.dtype), shapes
    )


def _confusion(logits: jax.Array, batch: Batch) -> jax.Array:
    classes = logits.shape[-1]
    counts = (batch.mask & (batch.labels >= 0)).astype(jnp.int32)
    cells = jnp.maximum(batch.labels, 0) * classes + logits.argmax(-1)
    return jnp.bincount(cells.reshape(-1), counts.reshape(-1), length=classes**2).reshape(classes, classes)
