"""The position-wise feed-forward part of SDT, which LPGNet inherits."""

import jax
from flax import linen as nn

from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import dense


class PositionwiseFeedForward(nn.Module):
    """Two linear layers for each position on its own: Dropout(Dropout(GELU(LN(x) W_1 + b_1)) W_2 + b_2).

    The residual around it is the caller's. GELU is its tanh approximation, as in SDT.

    Attributes:
      inner: width between the two layers.
      dropout_rate: rate, after either layer.
      normalize: False = without the LayerNorm.
      epsilon: of the LayerNorm.
      initialization: see `jmer.layers.initializers`.
    """

    inner: int
    dropout_rate: float = 0.0
    normalize: bool = True
    epsilon: float = 1e-6
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, row_ids: jax.Array | None = None) -> jax.Array:
        """Maps `x` `[B, ..., D]` to its shape; for `train` and `row_ids` see `ConversationDropout`."""
        width = x.shape[-1]
        if self.normalize:
            x = nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name="norm")(x)
        x = nn.gelu(dense(self.inner, width, scheme=self.initialization, name="inner")(x))
        x = ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)
        x = dense(width, self.inner, scheme=self.initialization, name="outer")(x)
        return ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)
