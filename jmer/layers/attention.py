"""Scaled dot-product attention with masks."""

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays, describe
from jmer.layers.precision import softmax


def attention_weights(
    query: jax.Array, key: jax.Array, key_mask: jax.Array, *, pair_mask: jax.Array | None = None
) -> jax.Array:
    r"""Returns the weights of scaled dot-product attention, zero on masked keys (inner part of LFVD's Eq. 5).

    .. math:: \mathrm{softmax}\left(\frac{Q K^\top}{\sqrt{d}}\right)

    Args:
      query: float `[..., Tq, H, D]`, `H` heads of width `D`.
      key: float `[..., Tk, H, D]`.
      key_mask: bool `[..., Tk]`, True where a key is real.
      pair_mask: bool `[..., Tq, Tk]` or `[Tq, Tk]`, True where a query may attend to a key; an axis of 1 is broadcast.
        None = everywhere.

    Returns:
      `[..., H, Tq, Tk]`. A row sums to 1, or is all zero where the query has no valid key.
    """
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key) * query.shape[-1] ** -0.5
    visible = key_mask[..., None, :]
    if pair_mask is not None:
        visible = visible & pair_mask.reshape((1,) * (visible.ndim - pair_mask.ndim) + pair_mask.shape)
    return softmax(scores, where=jnp.broadcast_to(visible[..., None, :, :], scores.shape))


def masked_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, key_mask: jax.Array, *, pair_mask: jax.Array | None = None
) -> jax.Array:
    r"""Returns the values of the real keys, weighted by scaled dot-product attention (LFVD's Eq. 5).

    .. math:: \mathrm{softmax}\left(\frac{Q K^\top}{\sqrt{d}}\right) V

    A query with no valid key gets 0. Keys and values where `key_mask` is False do not matter.

    Args:
      query: float `[..., Tq, H, D]`, `H` heads of width `D`.
      key: float `[..., Tk, H, D]`.
      value: float `[..., Tk, H, D]`.
      key_mask: bool `[..., Tk]`, True where a key is real.
      pair_mask: bool `[..., Tq, Tk]` or `[Tq, Tk]`, True where a query may attend to a key, for causal attention or
        packed rows (`Segments.same_segment`); an axis of 1 is broadcast. None = everywhere.

    Returns:
      `[..., Tq, H, D]`.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> query, key, value = (jax.random.normal(jax.random.key(i), (2, 5, 4, 8)) for i in range(3))
      >>> mask = jnp.arange(5)[None] < jnp.array([5, 3])[:, None]
      >>> masked_attention(query, key, value, mask).shape
      (2, 5, 4, 8)
      >>> causal = masked_attention(query, key, value, mask, pair_mask=jnp.tri(5, dtype=bool))
      >>> bool(jnp.allclose(causal[:, 0], value[:, 0]))
      True
    """
    sizes = check_arrays(
        query=(query, "float [..., Tq, H, D]"),
        key=(key, "float [..., Tk, H, D]"),
        value=(value, "float [..., Tk, H, D]"),
        key_mask=(key_mask, "bool [..., Tk]"),
    )
    check_pair_mask(pair_mask, (*sizes["..."], sizes["Tq"], sizes["Tk"]))
    key, value = (jnp.where(key_mask[..., None, None], x, 0) for x in (key, value))
    weights = attention_weights(query, key, key_mask, pair_mask=pair_mask)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


def check_pair_mask(pair_mask: jax.Array | None, shape: tuple[int, ...]) -> None:
    """Checks that a mask of pairs has the shape `[..., Tq, Tk]` or that of its last axes; sizes of 1 are broadcast."""
    if pair_mask is None:
        return
    check_arrays(pair_mask=(pair_mask, "bool [..., Tq, Tk]"))
    pairs = zip(reversed(pair_mask.shape), reversed(shape), strict=False)
    if pair_mask.ndim > len(shape) or any(size not in (1, full) for size, full in pairs):
        raise ValueError(f"pair_mask: expected bool {list(shape)} or its last axes, got {describe(pair_mask)}")
