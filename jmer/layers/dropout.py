"""Random draws keyed by row, so that the same seed gives the same numbers on any number of devices."""

import jax
import jax.numpy as jnp
from flax import linen as nn


def row_keys(key: jax.Array, row_ids: jax.Array | None, count: int) -> jax.Array:
    """Returns one random key per row, `[B]`.

    Args:
      key: one key for the whole batch, the same on every device.
      row_ids: int32 `[B]`, a number that a row keeps on whatever device it is computed: that of its first conversation
        (`Batch.row_ids`); None = 0 to `count` - 1.
      count: `B`.
    """
    row_ids = jnp.arange(count) if row_ids is None else row_ids
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(row_ids)


class ConversationDropout(nn.Module):
    """Dropout whose mask for a row depends on the key and the number of the row's first conversation alone.

    `flax.linen.Dropout` draws one mask for the rows that a device holds, so its noise changes with the device count.

    Attributes:
      rate: share of entries set to zero; the others are divided by 1 - rate.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, row_ids: jax.Array | None = None) -> jax.Array:
        """Drops entries of `x` `[B, ...]` when `train`; needs the random stream `dropout` then."""
        if not train or self.rate == 0:
            return x
        keys = row_keys(self.make_rng("dropout"), row_ids, x.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0)
