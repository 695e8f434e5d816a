"""The classification term of every model's loss, and the output and the loss of models that have nothing else."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jmer.batch import Batch
from jmer.losses.classification import cross_entropy, focal_loss, published_focal_loss
from jmer.models.checks import check_choice, check_gamma


def classification_term(
    logits: jax.Array,
    labels: jax.Array,
    where: jax.Array,
    class_weights: Sequence[float] = (),
    values_of: Callable[..., jax.Array] = cross_entropy,
) -> tuple[jax.Array, jax.Array]:
    """Returns Σ w_y · (−log p_y) and Σ w_y over the utterances that count; their quotient is PyTorch's weighted mean.

    Args:
      logits: float32 `[B, T, C]`.
      labels: int32 `[B, T]`, -1 = unlabelled.
      where: bool `[B, T]`, True where an utterance is to be classified; without a label it does not count.
      class_weights: `C` numbers, or none (all 1).
      values_of: a loss per utterance in place of −log p_y, called as `cross_entropy` is.

    Raises:
      ValueError: if there are class weights, but not one for each emotion.
    """
    labelled = where & (labels >= 0)
    values = values_of(logits, labels, where=labelled)
    weights = jnp.where(labelled, 1.0, 0.0)
    if class_weights:
        if len(class_weights) != logits.shape[-1]:
            raise ValueError(f"there are {len(class_weights)} class_weights for {logits.shape[-1]} emotions")
        weights = weights * jnp.asarray(class_weights)[jnp.maximum(labels, 0)]
    return jnp.sum(weights * values), jnp.sum(weights)


@struct.dataclass
class ClassifierOutput:
    """The output of a model for a batch that has nothing but the emotions.

    Attributes:
      logits: `[B, T, C]`.
    """

    logits: jax.Array


@dataclasses.dataclass(frozen=True)
class CrossEntropyLoss:
    """The weighted mean of the labelled utterances' cross-entropy.

    Attributes:
      class_weights: weight of each emotion, `C` numbers; empty = all 1.
    """

    class_weights: tuple[float, ...] = ()

    def __call__(self, output: Any, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns the one term as (weight, sum over this device's labelled utterances, their weight).

        Raises:
          ValueError: if there are class weights, but not one for each emotion.
        """
        total, count = classification_term(output.logits, batch.labels, batch.mask, self.class_weights)
        return {"classification": (1.0, total, count)}


CRITERIA = ("cross_entropy", "focal", "published_focal")


@dataclasses.dataclass(frozen=True)
class FocalClassificationLoss:
    """A weighted mean over labelled utterances of their cross-entropy, or of a focal loss.

    Attributes:
      criterion: `cross_entropy`, `focal` (`jmer.losses.focal_loss`) or `published_focal` (what the code of MMGCN and
        M3NET calls so, `jmer.losses.published_focal_loss`).
      focal_gamma: γ of the focal losses, at least 0.
      class_weights: weight of each emotion, `C` numbers; empty = all 1.
    """

    criterion: str = "cross_entropy"
    focal_gamma: float = 2.5
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        check_choice("criterion", self.criterion, CRITERIA)
        check_gamma(self.focal_gamma)

    def __call__(self, output: Any, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns the one term as (weight, sum over this device's labelled utterances, their weight).

        Raises:
          ValueError: if there are class weights, but not one for each emotion.
        """
        losses: dict[str, Callable[..., jax.Array]] = {
            "cross_entropy": cross_entropy,
            "focal": functools.partial(focal_loss, gamma=self.focal_gamma),
            "published_focal": functools.partial(published_focal_loss, gamma=self.focal_gamma),
        }
        values_of = losses[self.criterion]
        total, count = classification_term(output.logits, batch.labels, batch.mask, self.class_weights, values_of)
        return {"classification": (1.0, total, count)}


@dataclasses.dataclass(frozen=True)
class FocalMeanLoss:
    """The focal loss of DialogueCRN and MM-DFN: a mean over utterances, not over the weights of their emotions.

    Attributes:
      focal_gamma: γ, at least 0; 0 = a cross-entropy.
      focal_detach: whether the factor (1 - p)^γ is a constant to the gradient, as in the authors' code.
      class_weights: weight of each emotion, `C` numbers; empty = all 1.
    """

    focal_gamma: float = 0.0
    focal_detach: bool = True
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        check_gamma(self.focal_gamma)

    def __call__(self, output: Any, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns the one term as (weight, sum over this device's labelled utterances, their number).

        Raises:
          ValueError: if there are class weights, but not one for each emotion.
        """
        values_of = functools.partial(focal_loss, gamma=self.focal_gamma, stop_factor_gradient=self.focal_detach)
        total, _ = classification_term(output.logits, batch.labels, batch.mask, self.class_weights, values_of)
        count = jnp.sum(batch.mask & (batch.labels >= 0)).astype(total.dtype)
        return {"classification": (1.0, total, count)}
