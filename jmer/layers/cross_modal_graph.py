"""Graph convolution from the utterances of one modality to those of another (GraphSmile: Li et al., 2025)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_at_least_one, check_rate
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import Dtype, Initializer, torch_uniform, with_fan_in


def normalized_adjacency(edges: jax.Array) -> jax.Array:
    r"""Returns a graph's adjacency matrix with the degrees of both ends divided out (Kipf and Welling, 2017).

    .. math:: \hat{A}_{ij} = A_{ij} / \sqrt{d_i d_j}, \quad d_i = \sum_k A_{ik}

    Args:
      edges: bool `[B, T, T]`, True at `[b, i, j]` where i receives from j.

    Returns:
      float `[B, T, T]`, 0 where there is no edge.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> print(normalized_adjacency(jnp.array([[[True, True], [False, True]]])).round(2)[0])
      [[0.5  0.71]
       [0.   1.  ]]
    """
    check_arrays(edges=(edges, "bool [B, T, T]"))
    scale = jax.lax.rsqrt(jnp.maximum(jnp.sum(edges, axis=-1, dtype=float), 1))
    return jnp.where(edges, scale[:, :, None] * scale[:, None, :], 0)


class CrossModalConvolutions(nn.Module):
    r"""Layers in which two modalities take each other's place, and what each layer adds to either of them.

    .. math::
        y^m_l = \hat{A} \, y^n_{l-1} W_l + b_l, \quad y^n_l = \hat{A} \, y^m_{l-1} W_l + b_l, \quad
        s^m_l = s^m_{l-1} + \mathrm{Drop}(\mathrm{LeakyReLU}(y^m_l W'_l + b'_l))

    from :math:`y_0 = s_0 = x`. There is nothing between the layers, and both directions share their parameters. A
    modality by itself receives from its own utterances.

    Attributes:
      num_layers: number of layers.
      dropout_rate: rate of what a layer adds.
      kernel_init: initializer of both kernels of a layer.
      bias_init: initializer of both biases.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layers, pair = CrossModalConvolutions(num_layers=2), jnp.ones((1, 4, 2, 8))
      >>> adjacency = normalized_adjacency(jnp.ones((1, 4, 4), bool))
      >>> layers.init_with_output(jax.random.key(0), pair, adjacency)[0].shape
      (1, 4, 2, 8)
    """

    num_layers: int
    dropout_rate: float = 0.0
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, pair: jax.Array, adjacency: jax.Array, *, train: bool = False, row_ids: jax.Array | None = None
    ) -> jax.Array:
        r"""Passes messages between two modalities.

        Args:
          pair: float `[B, T, M, D]`, of two modalities or one.
          adjacency: float `[B, T, T]`, :math:`\hat{A}`; its rows and columns of padding must be zero, and what stands
            there in `pair` finite.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          `[B, T, M, D]`.

        Raises:
          TypeError, ValueError: for no layer, a rate out of range, or an argument of another kind or shape.
        """
        check_arrays(pair=(pair, "float [B, T, M, D]"), adjacency=(adjacency, "float [B, T, T]"))
        check_at_least_one(num_layers=self.num_layers)
        check_rate("dropout_rate", self.dropout_rate)
        rows, length, count, width = pair.shape

        def transformed(x: jax.Array, name: str) -> tuple[jax.Array, jax.Array]:
            kernel = self.param(f"{name}_kernel", self.kernel_init, (width, width), self.param_dtype)
            bias = self.param(f"{name}_bias", with_fan_in(self.bias_init, width), (width,), self.param_dtype)
            x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
            return x @ kernel, bias[None, None, None]

        drop = ConversationDropout(self.dropout_rate)
        pair, adjacency = promote_dtype(pair, adjacency, dtype=self.dtype)
        result = states = pair
        for i in range(self.num_layers):
            spread, bias = transformed(states, f"layer_{i}_graph")
            spread = jnp.einsum("bij,bjx->bix", adjacency, spread.reshape(rows, length, count * width))
            states = spread.reshape(pair.shape) + bias
            added, bias = transformed(states, f"layer_{i}_output")
            added = drop(nn.leaky_relu(added + bias), train=train, row_ids=row_ids)
            # `states` stay with their own modality: after an odd number of layers they add to the other one.
            result = result + (added[:, :, ::-1] if i % 2 == 0 else added)
        return result
