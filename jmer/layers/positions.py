"""Sinusoidal encodings of an utterance's position in its conversation."""

import jax
import jax.numpy as jnp
import numpy as np

from jmer.checks import check_at_least_one
from jmer.segments import Segments, check_segments


def sinusoidal_positions(length: int, features: int, *, segments: Segments | None = None) -> jax.Array:
    r"""Returns sinusoidal position encodings (Vaswani et al., 2017, section 3.5).

    .. math::
        PE_{p, 2i} = \sin\left(p / 10000^{2i / D}\right), \quad PE_{p, 2i + 1} = \cos\left(p / 10000^{2i / D}\right)

    Args:
      length: `T`, the number of positions, from 0.
      features: `D`, the width of an encoding.
      segments: the conversations of packed rows; positions then count from the start of each conversation.

    Returns:
      float32 `[T, D]`, a constant; with segments `[B, T, D]`.

    Raises:
      TypeError, ValueError: for a size below 1, or segments of rows of another length.

    Examples:
      >>> print(sinusoidal_positions(3, 4)[0])
      [0. 1. 0. 1.]
    """
    check_at_least_one(length=length, features=features)
    feature = np.arange(features)
    # In float64, since a large angle would lose its digits; neighbours 2i and 2i + 1 share a frequency.
    angle = np.arange(length)[:, None] * 10000.0 ** (-(feature - feature % 2) / features)
    table = jnp.asarray(np.where(feature % 2, np.cos(angle), np.sin(angle)), jnp.float32)
    if segments is None:
        return table
    check_segments(segments, length)
    if segments.count == 1:
        return jnp.broadcast_to(table[None], (*segments.ids.shape, features))
    return table[segments.positions()]
