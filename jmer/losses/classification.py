"""Cross-entropy over emotions."""

import jax
import jax.numpy as jnp

from jmer.losses.reduction import utterance_mask, zero_unless


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    where: jax.Array | None = None,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    """Returns w_y · (−log softmax(logits)_y) for each utterance (LFVD, Eq. 19; LPGNet's hard-label loss).

    To divide by the sum of the weights, as PyTorch does, leave `class_weights` out and give `class_weights[labels]` as
    weights to `masked_mean`.

    Args:
      logits: float32 `[..., C]`.
      labels: int32 `[...]`, emotion index; negative = unlabelled, value 0. An index of C or more gives NaN.
      where: bool `[...]`, True where an utterance counts; None = all labelled ones.
      class_weights: float32 `[C]`; None = 1.

    Returns:
      float32 `[...]`, in nats; 0 where masked or unlabelled.

    Raises:
      ValueError: if shapes disagree.
    """
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels have shape {labels.shape}, but logits {logits.shape} call for {logits.shape[:-1]}")
    if class_weights is not None and class_weights.shape != logits.shape[-1:]:
        raise ValueError(f"class_weights have shape {class_weights.shape}, but there are {logits.shape[-1]} classes")
    counts = utterance_mask(where, labels.shape) & (labels >= 0)
    classes = jnp.where(counts, labels, 0)
    log_probabilities = jax.nn.log_softmax(zero_unless(counts, logits), axis=-1)
    values = -jnp.take_along_axis(log_probabilities, classes[..., None], axis=-1)[..., 0]
    if class_weights is not None:
        values *= jnp.asarray(class_weights)[classes]
    return jnp.where(counts, values, 0)
