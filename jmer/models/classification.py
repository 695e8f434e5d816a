"""The classification term of every model's loss."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jmer.losses.classification import cross_entropy


def classification_term(
    logits: jax.Array, labels: jax.Array, where: jax.Array, class_weights: Sequence[float] = ()
) -> tuple[jax.Array, jax.Array]:
    """Returns Σ w_y · (−log p_y) and Σ w_y over the utterances that count; their quotient is PyTorch's weighted mean.

    Args:
      logits: float32 `[B, T, C]`.
      labels: int32 `[B, T]`, -1 = unlabelled.
      where: bool `[B, T]`, True where an utterance is to be classified; without a label it does not count.
      class_weights: `C` numbers, or none (all 1).

    Raises:
      ValueError: if there are class weights, but not one for each emotion.
    """
    labelled = where & (labels >= 0)
    values = cross_entropy(logits, labels, where=labelled)
    weights = jnp.where(labelled, 1.0, 0.0)
    if class_weights:
        if len(class_weights) != logits.shape[-1]:
            raise ValueError(f"there are {len(class_weights)} class_weights for {logits.shape[-1]} emotions")
        weights = weights * jnp.asarray(class_weights)[jnp.maximum(labels, 0)]
    return jnp.sum(weights * values), jnp.sum(weights)
