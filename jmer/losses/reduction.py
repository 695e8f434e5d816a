"""Means of values per utterance, and the masks of the utterances that count."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jmer.checks import check_array, check_arrays, check_modalities
from jmer.layers.normalization import AxisName


def masked_mean(
    values: jax.Array, where: jax.Array, *, weights: jax.Array | None = None, axis: AxisName = None
) -> jax.Array:
    r"""Returns the weighted mean over the positions that count, on all devices of a mapped axis; 0 when nothing counts.

    .. math:: \frac{\sum_i w_i v_i}{\sum_i w_i}

    The value is the global mean on every device. Its gradient is that of this device's part of it, so the sum of the
    devices' gradients (`psum`) is the gradient of the global mean.

    Args:
      values: float `[...]`; those where `where` is False do not matter.
      where: bool `[...]`, True where a value counts.
      weights: float `[...]`, weight of each value, e.g. `class_weights[labels]` for the weighted mean that PyTorch's
        cross-entropy takes (of unweighted values); None = 1.
      axis: name or names of the mapped axes; None = not mapped.

    Returns:
      A scalar.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> print(masked_mean(jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])))
      2.0
    """
    check_arrays(values=(values, "float [...]"), where=(where, "bool [...]"), weights=(weights, "float [...]?"))
    counted = where.astype(values.dtype) if weights is None else jnp.where(where, weights, 0)
    total = sum_over_devices(jnp.sum(jnp.where(where, values, 0) * counted), axis)
    count = sum_over_devices(jnp.sum(counted), axis)
    return total / jnp.where(count > 0, count, 1)


def sum_over_devices(local: jax.Array, axis: AxisName) -> jax.Array:
    """Returns the sum over the devices of mapped axes, with the gradient of this device's part of it.

    Args:
      local: float `[...]`, this device's sums.
      axis: name or names of the mapped axes; None = not mapped.
    """
    if axis is None:
        return local
    # Added as an exact zero, the local sum passes its gradient and leaves the same bits on every device.
    return jax.lax.stop_gradient(jax.lax.psum(local, axis)) + (local - jax.lax.stop_gradient(local))


def gather_from_devices(local: jax.Array, axis: AxisName) -> jax.Array:
    """Returns the rows of all devices of mapped axes, with the gradient of this device's rows alone.

    Args:
      local: `[N, ...]`, this device's rows.
      axis: name or names of the mapped axes; None = not mapped.
    """
    if axis is None:
        return local
    rows = jax.lax.all_gather(jax.lax.stop_gradient(local), axis, tiled=True)
    return jax.lax.dynamic_update_slice_in_dim(rows, local, jax.lax.axis_index(axis) * len(local), 0)


def zero_unless(where: jax.Array, x: jax.Array) -> jax.Array:
    """Returns `x` with zeros at the positions that do not count, so that nothing there reaches a value or a gradient.

    Args:
      where: bool `[...]`.
      x: `[..., D]`.
    """
    return jnp.where(where[..., None], x, 0)


def utterance_mask(where: jax.Array | None, shape: tuple[int, ...], name: str = "where") -> jax.Array:
    """Returns a mask of utterances as an array of that shape; None means that every utterance counts.

    Raises:
      TypeError, ValueError: if it is not a bool array of that shape; `name` is its name in the error.
    """
    check_array(name, where, "bool [...]?", {"...": shape})
    return jnp.ones(shape, bool) if where is None else jnp.asarray(where)


def modality_masks(
    where: jax.Array | Mapping[str, jax.Array] | None, modalities: Mapping[str, object], shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Returns one bool mask for each modality.

    Args:
      where: one mask for all modalities, a mask for each, or None (everything counts).
      modalities: a mapping with the modalities' names as keys.
      shape: shape of a mask.

    Raises:
      TypeError, ValueError: if the masks are of other modalities, or one is not a bool array of that shape.
    """
    if not isinstance(where, Mapping):
        return dict.fromkeys(modalities, utterance_mask(where, shape))
    check_modalities("where", where, modalities)
    return {modality: utterance_mask(where[modality], shape, f"where[{modality!r}]") for modality in modalities}
