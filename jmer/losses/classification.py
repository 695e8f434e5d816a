"""Cross-entropy over emotions."""

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays
from jmer.losses.reduction import utterance_mask, zero_unless


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    where: jax.Array | None = None,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    r"""Returns the weighted cross-entropy of each utterance (LFVD's Eq. 19; LPGNet's loss of hard labels).

    .. math:: -w_{y_i} \log \hat{y}_{i, y_i}, \quad \hat{y}_i = \mathrm{softmax}(\mathrm{logits}_i)

    To divide by the sum of the weights, as PyTorch does, leave `class_weights` out and give `class_weights[labels]` as
    weights to `masked_mean`.

    Args:
      logits: float `[..., C]`.
      labels: int `[...]`, emotion index; negative = unlabelled, value 0. An index of C or more gives NaN.
      where: bool `[...]`, True where an utterance counts; None = all labelled ones.
      class_weights: float `[C]`; None = 1.

    Returns:
      `[...]`, in nats; 0 where masked or unlabelled.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> logits, labels = jnp.zeros((2, 4)), jnp.array([3, -1])
      >>> [round(float(value), 3) for value in cross_entropy(logits, labels)]
      [1.386, 0.0]
    """
    check_arrays(
        logits=(logits, "float [..., C]"),
        labels=(labels, "int [...]"),
        where=(where, "bool [...]?"),
        class_weights=(class_weights, "float [C]?"),
    )
    counts = utterance_mask(where, labels.shape) & (labels >= 0)
    classes = jnp.where(counts, labels, 0)
    log_probabilities = jax.nn.log_softmax(zero_unless(counts, logits), axis=-1)
    values = -jnp.take_along_axis(log_probabilities, classes[..., None], axis=-1)[..., 0]
    if class_weights is not None:
        values *= jnp.asarray(class_weights)[classes]
    return jnp.where(counts, values, 0)
