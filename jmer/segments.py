"""Several conversations in one row: what belongs together, and what is said of each conversation as a whole.

Rows of a batch have one length, conversations have not. Laid end to end, short ones fill what padding would waste;
everything that looks beyond one utterance must then stop at a conversation's border.
"""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Segments:
    """The conversations of each row, which follow one another from position 0 on. Padding comes after the last.

    Attributes:
      ids: int32 `[B, T]`, which of its row's conversations a position belongs to, from 0 upwards without a decrease.
        Padding belongs to the last one: masks tell it apart.
      count: `K`, as many as a row may have.
    """

    ids: jax.Array
    count: int = struct.field(pytree_node=False)

    def together(self) -> jax.Array:
        """Returns where two positions are of one conversation, bool `[B, T, T]`."""
        return self.ids[:, :, None] == self.ids[:, None, :]

    def membership(self) -> jax.Array:
        """Returns which positions each conversation has, bool `[B, K, T]`."""
        return self.ids[:, None, :] == jnp.arange(self.count)[None, :, None]

    def starts(self) -> jax.Array:
        """Returns where a conversation begins, bool `[B, T]`; position 0 always is such a place."""
        before = jnp.pad(self.ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        return self.ids != before

    def ends(self) -> jax.Array:
        """Returns the last position of each conversation, bool `[B, T]`; the row's last position always is one."""
        after = jnp.pad(self.ids[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        return self.ids != after

    def positions(self) -> jax.Array:
        """Returns each position's distance from its conversation's beginning, int32 `[B, T]`."""
        place = jnp.broadcast_to(jnp.arange(self.ids.shape[1], dtype=jnp.int32)[None], self.ids.shape)
        return place - jax.lax.cummax(jnp.where(self.starts(), place, 0), axis=1)

    def mean(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Returns each conversation's mean over its real positions, zero where it has none.

        Args:
          x: float32 `[B, T, D]`; what stands where `mask` is False does not matter.
          mask: bool `[B, T]`, True = real.

        Returns:
          float32 `[B, K, D]`.
        """
        real = self.membership() & mask[:, None, :]
        total = _exactly("bkt,btd->bkd", real, jnp.where(mask[..., None], x, 0))
        return total / jnp.maximum(real.sum(-1), 1)[..., None]

    def any(self, mask: jax.Array) -> jax.Array:
        """Returns whether a conversation has any position where `mask` (bool `[B, T]`) is True, bool `[B, K]`."""
        return (self.membership() & mask[:, None, :]).any(-1)

    def spread(self, values: jax.Array) -> jax.Array:
        """Gives each position what its conversation has: `[B, K, ...]` to `[B, T, ...]`."""
        if self.count == 1:
            return jnp.broadcast_to(values, (*self.ids.shape, *values.shape[2:]))
        # A product, whose derivative is a product too, where that of an index would scatter.
        return _exactly("bkt,bk...->bt...", self.membership(), values)


def _exactly(indices: str, chosen: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the product with ones and zeros, where `chosen` is False; an accelerator must not round `x` for it."""
    return jnp.einsum(indices, chosen.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)


def one_per_row(rows: int, length: int) -> Segments:
    """Returns the segments of rows that hold one conversation each."""
    return Segments(jnp.zeros((rows, length), jnp.int32), 1)
