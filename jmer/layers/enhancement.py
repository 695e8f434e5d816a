"""What one attention path makes of its query (LPGNet's lightweight parallel interaction attention, step 4)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.feed_forward import PositionwiseFeedForward
from jmer.layers.initializers import dense
from jmer.layers.normalization import MaskedBatchNorm
from jmer.segments import Segments, one_per_row

COMPRESSIONS = ("pooled", "per_position", "query_mean", "pooled_plus_context", "channel")
COMPRESS_NORMS = ("batch", "layer")
FFN_INPUTS = ("residual", "parallel")


class ResidualEnhancement(nn.Module):
    """Adds a path's compressed context to its original query, then a feed-forward part, each as a residual.

    With X the query's features before projection, C the path's context and c̄ the mean of C over a conversation's real
    positions:

        z = LeakyReLU(Norm(Conv1×1(c̄)))    global compression
        R = X + z                            z is broadcast over the conversation's positions
        H = R + FFN(R)                       position-wise feed-forward part

    The paper's text has these parts without their equations; the attributes' first values are the literal reading.
    Where the source has no real position in a conversation there is nothing to compress: z is 0, and batch statistics
    leave it out.

    Attributes:
      global_compression: what z is made of: `pooled` (c̄), `per_position` (C, each position on its own), `query_mean`
        (the context of one mean query, see `FourWayParallelAttention.pool_queries`), `pooled_plus_context` (c̄, and R
        also has C in it) or `channel` (C, each position compressed to one number, which all features share).
      compress_norm: `batch` (see `MaskedBatchNorm`; over conversations for a pooled context, over real positions else)
        or `layer` (over features).
      use_ffn: False = H is R.
      ffn_input: `residual` (as above) or `parallel` (H = R + FFN(X)).
      ffn_pre_ln: False = the feed-forward part has no LayerNorm.
      inner: width inside the feed-forward part.
      dropout_rate: rate, in the feed-forward part.
      initialization: see `jmer.layers.initializers`.
    """

    inner: int
    global_compression: str = "pooled"
    compress_norm: str = "batch"
    use_ffn: bool = True
    ffn_input: str = "residual"
    ffn_pre_ln: bool = True
    dropout_rate: float = 0.0
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array,
        mask: jax.Array,
        source: jax.Array,
        train: bool = False,
        row_ids: jax.Array | None = None,
        axis: str | None = None,
        segments: Segments | None = None,
    ) -> jax.Array:
        """Enhances one path's target.

        Args:
          x: float32 `[B, T, D]`, X; what stands on padding does not matter, here and in the context.
          context: float32 `[B, T, D]`, C; for `query_mean` `[B, K, D]`.
          mask: bool `[B, T]`, the target's real positions.
          source: bool `[B, K]`, whether the source has any real position in a conversation.
          train: whether dropout is on and batch statistics are this batch's, see `MaskedBatchNorm`.
          row_ids: int32 `[B]`, see `ConversationDropout`.
          axis: see `MaskedBatchNorm`.
          segments: the `K` conversations of each row; None = one.

        Returns:
          float32 `[B, T, D]`, H; zero on padding.

        Raises:
          ValueError: for a switch that has no such value.
        """
        self._check()
        segments = one_per_row(*mask.shape) if segments is None else segments
        there = segments.any(mask)
        asked = there if self.global_compression == "query_mean" else mask
        x, context = (jnp.where(real[..., None], value, 0) for real, value in ((mask, x), (asked, context)))
        if self.global_compression in ("per_position", "channel"):
            heard = (segments.membership() & source[..., None]).any(1)
            z = self._compress(context, mask & heard, train, axis)
        else:
            pooled = context if self.global_compression == "query_mean" else segments.mean(context, mask)
            z = segments.spread(self._compress(pooled, there & source, train, axis))
        residual = x + z
        if self.global_compression == "pooled_plus_context":
            residual = residual + context
        enhanced = residual
        if self.use_ffn:
            ffn = PositionwiseFeedForward(
                self.inner, self.dropout_rate, self.ffn_pre_ln, initialization=self.initialization, name="ffn"
            )
            enhanced = residual + ffn(residual if self.ffn_input == "residual" else x, train, row_ids)
        return jnp.where(mask[..., None], enhanced, 0)

    def _compress(self, context: jax.Array, rows: jax.Array, train: bool, axis: str | None) -> jax.Array:
        """Returns z, zero outside `rows`; its last axis is 1 for `channel`."""
        width = context.shape[-1]
        compressed = 1 if self.global_compression == "channel" else width
        z = dense(compressed, width, scheme=self.initialization, name="conv")(context)
        if self.compress_norm == "batch":
            z = MaskedBatchNorm(name="norm")(z, rows, train=train, axis=axis)
        else:
            z = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(z)
        return jnp.where(rows[..., None], nn.leaky_relu(z), 0)

    def _check(self) -> None:
        switches = {
            "global_compression": (self.global_compression, COMPRESSIONS),
            "compress_norm": (self.compress_norm, COMPRESS_NORMS),
            "ffn_input": (self.ffn_input, FFN_INPUTS),
        }
        for name, (value, choices) in switches.items():
            if value not in choices:
                raise ValueError(f"unknown {name} '{value}'; choose one of {', '.join(choices)}")
        if self.global_compression == "channel" and self.compress_norm == "layer":
            raise ValueError("global_compression channel needs compress_norm batch: layer would make its one number 0")
