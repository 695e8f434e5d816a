"""Scaled dot-product attention that leaves padding out."""

import jax
import jax.numpy as jnp


def attention_weights(
    query: jax.Array, key: jax.Array, key_mask: jax.Array, *, pair_mask: jax.Array | None = None
) -> jax.Array:
    """Returns softmax over keys of the scaled products, zero on masked keys (LFVD Eq. 5, inner part).

    Args:
      query: `[..., Tq, H, D]`, `H` heads.
      key: `[..., Tk, H, D]`.
      key_mask: bool `[..., Tk]`, True where a key is real.
      pair_mask: bool `[..., Tq, Tk]` or `[Tq, Tk]` for all, True where a query may see a key (what was said before
        it, say, or what is of its conversation); a leading axis of 1 is for all of them. None = everywhere.

    Returns:
      `[..., H, Tq, Tk]`. A row sums to 1, or is all zero where the query sees no real key.
    """
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key) * query.shape[-1] ** -0.5
    visible = key_mask[..., None, :]
    if pair_mask is not None:
        visible = visible & pair_mask.reshape((1,) * (visible.ndim - pair_mask.ndim) + pair_mask.shape)
    return jax.nn.softmax(scores, where=jnp.broadcast_to(visible[..., None, :, :], scores.shape))


def masked_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, key_mask: jax.Array, *, pair_mask: jax.Array | None = None
) -> jax.Array:
    """Attends from queries to real keys; a query with no valid key gets 0 (LFVD Eq. 5).

    Args:
      query: `[..., Tq, H, D]`.
      key: `[..., Tk, H, D]`.
      value: `[..., Tk, H, D]`.
      key_mask: bool `[..., Tk]`.
      pair_mask: see `attention_weights`.

    Returns:
      `[..., Tq, H, D]`.
    """
    weights = attention_weights(query, key, key_mask, pair_mask=pair_mask)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)
