"""The concordance correlation coefficient (CCC) as a loss of values such as valence and arousal (Lin, 1989).

It is no mean over utterances: six sums over the whole batch determine it. They add up over devices and micro-batches,
and the coefficient is formed of the totals.
"""

import jax
import jax.numpy as jnp

from jmer.checks import check_array, check_arrays
from jmer.layers.normalization import AxisName
from jmer.losses.reduction import sum_over_devices, utterance_mask

SMALLEST_VARIANCE = 1e-8
"""Targets that vary less than this, in a float32 sum of squares, are constant."""


def concordance_loss(
    predictions: jax.Array, targets: jax.Array, *, where: jax.Array | None = None, axis: AxisName = None
) -> jax.Array:
    r"""Returns one minus the concordance correlation coefficient of predictions and targets.

    .. math::
        1 - \frac{2\, \mathrm{cov}(\hat v, v)}
        {\mathrm{var}\, \hat v + \mathrm{var}\, v + (\mathrm{mean}\, \hat v - \mathrm{mean}\, v)^2}

    with moments divided by n. It is 0 for equal numbers, 1 for predictions that are uncorrelated with the targets, 2 at
    most.

    The value is that of all devices, on every device. Its gradient is that of this device's part of it, so the sum of
    the devices' gradients (`psum`) is the gradient of the loss.

    Args:
      predictions: float `[...]`.
      targets: float `[...]`, NaN = unlabelled.
      where: bool `[...]`, True where an utterance counts; None = all labelled ones.
      axis: name or names of the mapped axes whose devices hold the other utterances; None = not mapped.

    Returns:
      A scalar; 0, and no gradient, for fewer than two utterances or targets that are all the same.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    References:
      Lin, 1989, A Concordance Correlation Coefficient to Evaluate Reproducibility, Biometrics 45(1).

    Examples:
      >>> targets = jnp.array([-1.0, 0.0, 1.0, jnp.nan])
      >>> print(concordance_loss(targets, targets), concordance_loss(jnp.zeros(4), targets))
      0.0 1.0
    """
    _, counts = _counted(predictions, targets, where)
    # Around the mean of the targets the sums are small, and their differences lose little in float32.
    totals = sum_over_devices(jnp.stack([jnp.sum(jnp.where(counts, targets, 0)), jnp.sum(counts)]), axis)
    centre = jax.lax.stop_gradient(totals[0] / jnp.maximum(totals[1], 1))
    return 1 - concordance(concordance_moments(predictions, targets, where=where, centre=centre, axis=axis))


def concordance_moments(
    predictions: jax.Array,
    targets: jax.Array,
    *,
    where: jax.Array | None = None,
    centre: float | jax.Array = 0.0,
    axis: AxisName = None,
) -> jax.Array:
    r"""Returns the six sums of which the coefficient is formed; those of micro-batches add up.

    .. math:: n, \ \sum \hat v, \ \sum v, \ \sum \hat v^2, \ \sum v^2, \ \sum \hat v v

    Args:
      predictions: float `[...]`.
      targets: float `[...]`, NaN = unlabelled.
      where: bool `[...]`, True where an utterance counts; None = all labelled ones.
      centre: what is subtracted from predictions and targets first, the same for all sums that are to be added. The
        coefficient does not depend on it; float32 loses least with one near the mean of the targets.
      axis: name or names of the mapped axes to sum over, as in `concordance_loss`; None = not mapped.

    Returns:
      float `[6]`.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> print(concordance_moments(jnp.array([1.0, 2.0]), jnp.array([3.0, jnp.nan])))
      [1. 1. 3. 1. 9. 3.]
    """
    (x, y), counts = _counted(predictions, targets, where)
    x, y = (jnp.where(counts, values - centre, 0) for values in (x, y))
    sums = [jnp.sum(counts, dtype=x.dtype), *(jnp.sum(values) for values in (x, y, x * x, y * y, x * y))]
    return sum_over_devices(jnp.stack(sums), axis)


def concordance(moments: jax.Array) -> jax.Array:
    """Returns the concordance correlation coefficient of the sums that `concordance_moments` gives.

    Args:
      moments: float `[..., 6]`.

    Returns:
      `[...]`, from -1 to 1; 1, without gradient, for fewer than two utterances or targets that are all the same: a loss
      has nothing to improve there.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> sums = [concordance_moments(x, x + 1) for x in (jnp.array([0.0, 1.0]), jnp.array([2.0]))]
      >>> print(round(float(concordance(sums[0] + sums[1])), 4))
      0.5714
    """
    check_array("moments", moments, "float [..., 6]", {})
    count, *sums = jnp.moveaxis(moments, -1, 0)
    x, y, xx, yy, xy = (total / jnp.maximum(count, 1) for total in sums)
    variance = yy - y * y
    defined = (count >= 2) & (variance > SMALLEST_VARIANCE)
    spread = (xx - x * x) + variance + jnp.square(x - y)
    spread = jnp.where(defined, jnp.maximum(spread, SMALLEST_VARIANCE), 1)
    return jnp.where(defined, 2 * (xy - x * y) / spread, 1)


def _counted(
    predictions: jax.Array, targets: jax.Array, where: jax.Array | None
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Returns predictions and targets, zero where they do not count, and where they do."""
    check_arrays(predictions=(predictions, "float [...]"), targets=(targets, "float [...]"))
    counts = utterance_mask(where, targets.shape) & ~jnp.isnan(targets)
    return (jnp.where(counts, predictions, 0), jnp.where(counts, targets, 0)), counts
