"""One vector for a sequence: the mean of its real positions, or a learned weighting of them."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.checks import check_arrays
from jmer.layers.initializers import Dtype, Initializer, torch_uniform
from jmer.layers.precision import softmax


def mean_pool(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean over a sequence's real positions, zero where it has none.

    Args:
      x: float `[..., T, D]`; values where `mask` is False do not matter.
      mask: bool `[..., T]`, True = real.

    Returns:
      `[..., D]`.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> x, mask = jnp.array([[1.0], [3.0], [100.0]]), jnp.array([True, True, False])
      >>> print(mean_pool(x, mask))
      [2.]
    """
    check_arrays(x=(x, "float [..., T, D]"), mask=(mask, "bool [..., T]"))
    total = jnp.where(mask[..., None], x, 0).sum(-2)
    return total / jnp.maximum(mask.sum(-1), 1)[..., None]


class AttentionPool(nn.Module):
    r"""The mean over a sequence's real positions under learned weights.

    .. math:: \sum_i \mathrm{softmax}_i(x_i w)\, x_i

    Attributes:
      kernel_init: initializer of w `[D, 1]`.
      dtype: of the computation; None = that of the input and the parameter.
      param_dtype: of the parameter.

    Examples:
      >>> layer, x, mask = AttentionPool(), jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
      >>> layer.init_with_output(jax.random.key(0), x, mask)[0].shape
      (2, 8)
    """

    kernel_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Pools sequences.

        Args:
          x: float `[..., T, D]`; values where `mask` is False do not matter.
          mask: bool `[..., T]`, True = real.

        Returns:
          `[..., D]`, zero for a sequence without a real position.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        check_arrays(x=(x, "float [..., T, D]"), mask=(mask, "bool [..., T]"))
        x = jnp.where(mask[..., None], x, 0).astype(self.dtype or x.dtype)
        score = nn.Dense(
            1,
            use_bias=False,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="score",
        )(x)[..., 0]
        return jnp.einsum("...t,...td->...d", softmax(score, where=mask), x)
