"""The position-wise feed-forward part of SDT, which LPGNet inherits."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.checks import check_arrays, check_at_least_one, check_rate
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import Dtype, Initializer, dense, layer_options, torch_uniform


class PositionwiseFeedForward(nn.Module):
    r"""Two linear layers applied to each position (SDT, Ma et al., 2023; LPGNet).

    .. math:: \mathrm{FFN}(x) = \mathrm{GELU}(\mathrm{LN}(x) W_1 + b_1) W_2 + b_2

    with dropout after either layer. The residual connection is the caller's. GELU is its tanh approximation, as in SDT.

    Attributes:
      hidden_features: width between the two layers.
      dropout_rate: after either layer.
      normalize: False = without the LayerNorm.
      epsilon: of the LayerNorm.
      kernel_init, bias_init: initializers of both layers.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, x = PositionwiseFeedForward(hidden_features=32), jnp.ones((2, 5, 8))
      >>> layer.init_with_output(jax.random.key(0), x)[0].shape
      (2, 5, 8)
    """

    hidden_features: int
    dropout_rate: float = 0.0
    normalize: bool = True
    epsilon: float = 1e-6
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, row_ids: jax.Array | None = None) -> jax.Array:
        """Transforms each position.

        Args:
          x: float `[B, ..., D]`.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          The shape of `x`.

        Raises:
          TypeError, ValueError: for a size or rate out of range, or an argument of another kind or shape.
        """
        check_arrays(x=(x, "float [..., D]"))
        check_at_least_one(hidden_features=self.hidden_features)
        check_rate("dropout_rate", self.dropout_rate)
        width, options = x.shape[-1], layer_options(self)
        if self.normalize:
            x = nn.LayerNorm(
                epsilon=self.epsilon,
                use_fast_variance=False,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name="norm",
            )(x)
        x = nn.gelu(dense(self.hidden_features, width, name="inner", **options)(x))
        x = ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)
        x = dense(width, self.hidden_features, name="outer", **options)(x)
        return ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)
