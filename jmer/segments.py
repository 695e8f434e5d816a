"""Sequence packing: several conversations in one row of a batch.

Rows of a batch have one length, conversations do not. Short ones laid end to end fill what padding would waste;
whatever looks beyond one utterance must then stop at a conversation's border.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jmer.checks import check_array, check_arrays, describe, is_concrete


@struct.dataclass
class Segments:
    """The conversations of packed rows, which follow one another from position 0 on; padding comes after the last.

    Attributes:
      ids: int32 `[B, T]`, the conversation within its row to which a position belongs: 0 at first, never decreasing.
        Padding belongs to the last one: masks tell it apart.
      count: `K`, the largest number of conversations in a row.

    Examples:
      >>> segments = Segments(jnp.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]), count=2)
      >>> print(segments.positions())
      [[0 1 0 1 2]
       [0 1 2 3 4]]
    """

    ids: jax.Array
    count: int = struct.field(pytree_node=False)

    def same_segment(self) -> jax.Array:
        """Returns whether two positions belong to one conversation, bool `[B, T, T]`."""
        return self.ids[:, :, None] == self.ids[:, None, :]

    def membership(self) -> jax.Array:
        """Returns which positions belong to each conversation, bool `[B, K, T]`."""
        return self.ids[:, None, :] == jnp.arange(self.count)[None, :, None]

    def starts(self) -> jax.Array:
        """Returns whether a position is the first of its conversation, bool `[B, T]`."""
        before = jnp.pad(self.ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        return self.ids != before

    def ends(self) -> jax.Array:
        """Returns whether a position is the last of its conversation, padding included, bool `[B, T]`."""
        after = jnp.pad(self.ids[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        return self.ids != after

    def positions(self) -> jax.Array:
        """Returns each position's distance from the start of its conversation, int32 `[B, T]`."""
        place = jnp.broadcast_to(jnp.arange(self.ids.shape[1], dtype=jnp.int32)[None], self.ids.shape)
        return place - jax.lax.cummax(jnp.where(self.starts(), place, 0), axis=1)

    def mean(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Returns the mean over each conversation's real positions, zero where it has none.

        Args:
          x: float `[B, T, D]`; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True = real.

        Returns:
          `[B, K, D]`.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        check_arrays(ids=(self.ids, "int [B, T]"), x=(x, "float [B, T, D]"), mask=(mask, "bool [B, T]"))
        real = self.membership() & mask[:, None, :]
        total = _exact_product("bkt,btd->bkd", real, jnp.where(mask[..., None], x, 0))
        return total / jnp.maximum(real.sum(-1), 1)[..., None]

    def any(self, mask: jax.Array) -> jax.Array:
        """Returns whether a conversation has a position where `mask` (bool `[B, T]`) is True, bool `[B, K]`."""
        check_arrays(ids=(self.ids, "int [B, T]"), mask=(mask, "bool [B, T]"))
        return (self.membership() & mask[:, None, :]).any(-1)

    def broadcast(self, values: jax.Array) -> jax.Array:
        """Returns values of conversations at each of their positions: `[B, K, ...]` to `[B, T, ...]`."""
        if self.count == 1:
            return jnp.broadcast_to(values, (*self.ids.shape, *values.shape[2:]))
        # A product, whose derivative is a product too, where that of an index would scatter.
        return _exact_product("bkt,bk...->bt...", self.membership(), values)


def _exact_product(indices: str, selected: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the product with a matrix of ones and zeros, which must not round `x` on an accelerator."""
    return jnp.einsum(indices, selected.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)


def one_per_row(rows: int, length: int) -> Segments:
    """Returns the segments of rows that hold one conversation each."""
    return Segments(jnp.zeros((rows, length), jnp.int32), 1)


def check_segments(segments: Segments | None, length: int, rows: int | None = None) -> None:
    """Checks that segments fit rows; None does. Ids of traced arrays are not known, and not checked.

    Raises:
      TypeError: for something other than segments.
      ValueError: if the ids have another shape, decrease, or do not lie in [0, count).
    """
    if segments is None:
        return
    if not isinstance(segments, Segments):
        raise TypeError(f"segments: expected a jmer.layers.Segments, got {describe(segments)}")
    sizes = {"T": length} if rows is None else {"B": rows, "T": length}
    check_array("segments.ids", segments.ids, "int [B, T]", sizes)
    if not is_concrete(segments.ids):
        return
    for ids in np.asarray(segments.ids):
        if len(ids) and (ids[0] < 0 or ids[-1] >= segments.count or (np.diff(ids) < 0).any()):
            raise ValueError(
                f"segments.ids: expected ids in [0, {segments.count}) that never decrease in a row, got {ids.tolist()}"
            )
