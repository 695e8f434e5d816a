"""Dropout that draws its noise row by row, so that a seed gives the same numbers on any number of devices."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.checks import check_array, check_rate


def row_keys(key: jax.Array, row_ids: jax.Array | None, count: int) -> jax.Array:
    """Returns one random key per row, `[B]`.

    Args:
      key: one key for the whole batch, the same on every device.
      row_ids: int32 `[B]`, an id that a row keeps on whatever device it is computed (`Batch.row_ids`); None = 0 to
        `count` - 1.
      count: `B`.
    """
    row_ids = jnp.arange(count) if row_ids is None else row_ids
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(row_ids)


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Returns bool `shape`, True with probability 1 - `rate`, to the nearest 2^-16: what dropout keeps.

    Each 32 random bits decide on two entries, half of the last axis apart: drawing bits is most of what dropout costs.
    With several axes, what is kept at a place does not depend on the length of the first.
    """
    *before, last = shape
    words = jax.random.bits(key, (*before, -(-last // 2)), jnp.uint32)
    halves = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., :last]
    return halves < round((1 - rate) * 2**16)


class ConversationDropout(nn.Module):
    """Dropout whose noise in a row depends on the random key and the row's id alone.

    `flax.linen.Dropout` draws one noise for all rows of a device, which therefore changes with the number of devices.

    Attributes:
      rate: probability that an entry is set to zero, see `keep_mask`; the others are divided by 1 - rate.

    Examples:
      >>> layer, x = ConversationDropout(rate=0.5), jnp.ones((2, 5, 8))
      >>> dropped = layer.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
      >>> second = layer.apply({}, x[1:], train=True, row_ids=jnp.array([1]), rngs={"dropout": jax.random.key(0)})
      >>> bool((dropped[1:] == second).all())
      True
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, row_ids: jax.Array | None = None) -> jax.Array:
        """Drops entries in training.

        Args:
          x: float `[B, ...]`.
          train: whether entries are dropped; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, ids of the rows that do not depend on the device they are on; None = 0 to `B` - 1.

        Returns:
          The shape of `x`.

        Raises:
          TypeError, ValueError: for a rate outside [0, 1), or row_ids of another kind or shape.
        """
        check_rate("rate", self.rate)
        check_array("row_ids", row_ids, "int [B]?", {"B": x.shape[0]})
        if not train or self.rate == 0:
            return x
        keys = row_keys(self.make_rng("dropout"), row_ids, x.shape[0])
        keep = jax.vmap(lambda key: keep_mask(key, x.shape[1:] or (1,), self.rate))(keys)
        return jnp.where(keep.reshape(x.shape), x / (1 - self.rate), 0)
