"""Cross-entropy over emotions, and focal losses made of it."""

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays, check_not_negative
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
    log_probabilities, target, counts = _log_probabilities(logits, labels, where, class_weights)
    return _weighted(-_of_label(log_probabilities, target), target, counts, class_weights)


def focal_loss(
    logits: jax.Array,
    labels: jax.Array,
    *,
    gamma: float,
    where: jax.Array | None = None,
    class_weights: jax.Array | None = None,
    stop_factor_gradient: bool = False,
) -> jax.Array:
    r"""Returns the focal loss of each utterance: a cross-entropy in which what is well recognized counts less.

    .. math:: -w_{y_i} (1 - \hat{y}_{i, y_i})^\gamma \log \hat{y}_{i, y_i}

    Args:
      logits: float `[..., C]`.
      labels: int `[...]`, emotion index; negative = unlabelled, value 0. An index of C or more gives NaN.
      gamma: γ, at least 0; 0 = the cross-entropy.
      where: bool `[...]`, True where an utterance counts; None = all labelled ones.
      class_weights: float `[C]`; None = 1.
      stop_factor_gradient: True = the factor (1 - ŷ)^γ is a constant to the gradient, as in MM-DFN (Hu et al., 2022).

    Returns:
      `[...]`, in nats; 0 where masked or unlabelled.

    Raises:
      TypeError, ValueError: for a negative `gamma`, or an argument of another kind or shape.

    References:
      Lin et al., 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002.

    Examples:
      >>> logits, labels = jnp.zeros((2, 4)), jnp.array([3, -1])
      >>> [round(float(value), 3) for value in focal_loss(logits, labels, gamma=2.0)]
      [0.78, 0.0]
    """
    check_not_negative("gamma", gamma)
    log_probabilities, target, counts = _log_probabilities(logits, labels, where, class_weights)
    of_label = _of_label(log_probabilities, target)
    # Where nothing is left of 1 - p, a power's derivative would be infinite.
    rest = jnp.maximum(-jnp.expm1(of_label), jnp.finfo(of_label.dtype).tiny)
    factor = rest**gamma
    if stop_factor_gradient:
        factor = jax.lax.stop_gradient(factor)
    return _weighted(-factor * of_label, target, counts, class_weights)


def published_focal_loss(
    logits: jax.Array, labels: jax.Array, *, gamma: float, where: jax.Array | None = None
) -> jax.Array:
    r"""Returns what the code of MMGCN (Hu et al., 2021) and M3NET (Chen et al., 2023) calls the focal loss.

    .. math:: -\frac{1}{C} \sum_c (1 - [c = y_i] \log \hat{y}_{ic})^\gamma \log \hat{y}_{ic}

    The logarithm stands where the probability is meant: hard examples count more instead of easy ones less, and every
    other emotion is rewarded for a high probability too. With seven emotions and γ = 2.5 it is smallest at
    :math:`\hat{y}_{iy} = 0.529`, as if half of the label were spread over all emotions. For comparison with published
    scores; `focal_loss` is the real one.

    Args:
      logits: float `[..., C]`.
      labels: int `[...]`, emotion index; negative = unlabelled, value 0.
      gamma: γ, at least 0.
      where: bool `[...]`, True where an utterance counts; None = all labelled ones.

    Returns:
      `[...]`; 0 where masked or unlabelled.

    Raises:
      TypeError, ValueError: for a negative `gamma`, or an argument of another kind or shape.

    Examples:
      >>> logits, labels = jnp.zeros((2, 4)), jnp.array([3, -1])
      >>> [round(float(value), 3) for value in published_focal_loss(logits, labels, gamma=1.0)]
      [1.867, 0.0]
    """
    check_not_negative("gamma", gamma)
    log_probabilities, target, counts = _log_probabilities(logits, labels, where)
    of_label = _of_label(log_probabilities, target)
    of_all = log_probabilities.sum(-1) + ((1 - of_label) ** gamma - 1) * of_label
    return jnp.where(counts, -of_all / logits.shape[-1], 0)


def _log_probabilities(
    logits: jax.Array, labels: jax.Array, where: jax.Array | None, class_weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns log-probabilities `[..., C]`, labels, and which utterances count; others get uniform ones and label 0."""
    check_arrays(
        logits=(logits, "float [..., C]"),
        labels=(labels, "int [...]"),
        where=(where, "bool [...]?"),
        class_weights=(class_weights, "float [C]?"),
    )
    counts = utterance_mask(where, labels.shape) & (labels >= 0)
    return jax.nn.log_softmax(zero_unless(counts, logits), axis=-1), jnp.where(counts, labels, 0), counts


def _of_label(values: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, target[..., None], axis=-1)[..., 0]


def _weighted(values: jax.Array, target: jax.Array, counts: jax.Array, class_weights: jax.Array | None) -> jax.Array:
    if class_weights is not None:
        values *= jnp.asarray(class_weights)[target]
    return jnp.where(counts, values, 0)
