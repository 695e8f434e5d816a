"""From values per utterance to means, and the masks that say which utterances count."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

# One mapped axis, several of them (hosts and devices, say), or none.
AxisName = str | tuple[str, ...] | None


def masked_mean(
    values: jax.Array, where: jax.Array, *, weights: jax.Array | None = None, axis: AxisName = None
) -> jax.Array:
    """Returns Σ w·v / Σ w over the positions that count, over all devices of a mapped axis; 0 when nothing counts.

    The value is the global mean on every device. Its gradient is that of this device's share of it, so the sum of the
    devices' gradients (`psum`) is the gradient of the global mean.

    Args:
      values: float32 `[...]`; what stands where `where` is False does not matter.
      where: bool `[...]`, True where a value counts.
      weights: float32 `[...]`, weight of each value, e.g. `class_weights[labels]` for the weighted mean that PyTorch's
        cross-entropy takes (of unweighted values); None = 1.
      axis: mapped axis name or names, None = unmapped.

    Returns:
      float32 scalar.
    """
    if where.shape != values.shape:
        raise ValueError(f"where has shape {where.shape}, but values {values.shape}")
    counted = where.astype(values.dtype) if weights is None else jnp.where(where, weights, 0)
    total = _sum_over_devices(jnp.sum(jnp.where(where, values, 0) * counted), axis)
    count = _sum_over_devices(jnp.sum(counted), axis)
    return total / jnp.where(count > 0, count, 1)


def _sum_over_devices(share: jax.Array, axis: AxisName) -> jax.Array:
    if axis is None:
        return share
    # Added as an exact zero, the share passes its gradient and leaves the same bits on every device.
    return jax.lax.stop_gradient(jax.lax.psum(share, axis)) + (share - jax.lax.stop_gradient(share))


def zero_unless(where: jax.Array, x: jax.Array) -> jax.Array:
    """Returns `x` with zeros at the positions that do not count, so that nothing there reaches a value or a gradient.

    Args:
      where: bool `[...]`.
      x: `[..., D]`.
    """
    return jnp.where(where[..., None], x, 0)


def utterance_mask(where: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Returns `where` as a bool array of that shape; None means that every utterance counts.

    Raises:
      ValueError: if `where` has another shape.
    """
    if where is None:
        return jnp.ones(shape, bool)
    if where.shape != shape:
        raise ValueError(f"where has shape {where.shape}, but there is one utterance for each position of {shape}")
    return jnp.asarray(where, bool)


def modality_masks(
    where: jax.Array | Mapping[str, jax.Array] | None, modalities: Mapping[str, object], shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Returns one bool mask for each modality.

    Args:
      where: one mask for all modalities, a mask for each, or None (everything counts).
      modalities: a mapping with the modalities' names as keys.
      shape: shape of a mask.

    Raises:
      ValueError: if a mapping lacks a modality, or a mask has another shape.
    """
    if not isinstance(where, Mapping):
        return dict.fromkeys(modalities, utterance_mask(where, shape))
    if missing := [modality for modality in modalities if modality not in where]:
        raise ValueError(f"where has no mask for {', '.join(missing)}; its modalities are {', '.join(where)}")
    return {modality: utterance_mask(where[modality], shape) for modality in modalities}


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError, naming the choices, if `value` is none of them."""
    if value not in choices:
        raise ValueError(f"unknown {name} '{value}'; choose one of {', '.join(choices)}")
