"""One vector for a sequence: the mean of its real positions, or a learnt weighting of them."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.initializers import dense


def mean_pool(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean over a sequence's real positions, zero where it has none.

    Args:
      x: float32 `[..., T, D]`; what stands where `mask` is False does not matter.
      mask: bool `[..., T]`, True = real.

    Returns:
      float32 `[..., D]`.
    """
    total = jnp.where(mask[..., None], x, 0).sum(-2)
    return total / jnp.maximum(mask.sum(-1), 1)[..., None]


class AttentionPool(nn.Module):
    """The mean over a sequence's real positions under learnt weights: Σ_i softmax_i(x_i · w) x_i, w a parameter.

    Attributes:
      initialization: see `jmer.layers.initializers`.
    """

    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Pools `x` `[..., T, D]` over the positions where `mask` `[..., T]` is True to `[..., D]`; zero for none."""
        x = jnp.where(mask[..., None], x, 0)
        score = dense(1, x.shape[-1], use_bias=False, scheme=self.initialization, name="score")(x)[..., 0]
        return jnp.einsum("...t,...td->...d", nn.softmax(score, where=mask), x)
