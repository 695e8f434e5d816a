"""Sinusoidal encodings of an utterance's position in its conversation."""

import jax
import jax.numpy as jnp
import numpy as np

from jmer.segments import Segments


def sinusoidal_positions(length: int, width: int) -> jax.Array:
    """Returns PE[p, 2i] = sin(p · 10000^(−2i / D)) and PE[p, 2i + 1] = cos of the same (Vaswani et al., 2017, 3.5).

    Args:
      length: `T`, positions from 0.
      width: `D`.

    Returns:
      float32 `[T, D]`, a constant.
    """
    feature = np.arange(width)
    # In float64, since a large angle would lose its digits; neighbours 2i and 2i + 1 share a frequency.
    angle = np.arange(length)[:, None] * 10000.0 ** (-(feature - feature % 2) / width)
    return jnp.asarray(np.where(feature % 2, np.cos(angle), np.sin(angle)), jnp.float32)


def segment_positions(segments: Segments, width: int) -> jax.Array:
    """Returns sinusoidal positions that begin anew with each conversation, float32 `[B, T, D]`.

    Args:
      segments: `B` rows of `T` positions; with one conversation each, `[1, T, D]` is returned for all.
      width: `D`.
    """
    table = sinusoidal_positions(segments.ids.shape[1], width)
    return table[None] if segments.count == 1 else table[segments.positions()]
