"""Two-stage residual enhancement (step 4 of LPGNet's lightweight parallel interaction attention)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_at_least_one, check_choice, check_rate
from jmer.layers.feed_forward import PositionwiseFeedForward
from jmer.layers.initializers import Dtype, Initializer, dense, layer_options, torch_uniform
from jmer.layers.normalization import AxisName, MaskedBatchNorm
from jmer.segments import Segments, check_segments, one_per_row

COMPRESSIONS = ("pooled", "per_position", "query_mean", "pooled_plus_context", "channel")
COMPRESS_NORMS = ("batch", "layer")
FFN_INPUTS = ("residual", "parallel")


class ResidualEnhancement(nn.Module):
    r"""Adds an attention path's compressed context to its query, then a feed-forward part, each as a residual (LPGNet).

    With X the query's features before projection, C the path's context and :math:`\bar c` the mean of C over a
    conversation's real positions:

    .. math::
        z &= \mathrm{LeakyReLU}(\mathrm{Norm}(\mathrm{Conv}_{1 \times 1}(\bar c))) \quad \text{(global compression)} \\
        R &= X + z \quad \text{(z is broadcast over positions)} \\
        H &= R + \mathrm{FFN}(R)

    The paper's text has these parts without their equations; the first value of each attribute is the literal
    interpretation. Where the source has no real position in a conversation there is nothing to compress: z is 0, and
    batch statistics leave it out.

    Attributes:
      hidden_features: width inside the feed-forward part.
      global_compression: what z is computed from: `pooled` (the mean of C), `per_position` (C, each position by
        itself), `query_mean` (the context of one mean query, see `FourWayParallelAttention.pool_queries`),
        `pooled_plus_context` (the mean of C, and R also has C in it) or `channel` (C, each position compressed to one
        number, which all features share).
      compress_norm: `batch` (see `MaskedBatchNorm`; over conversations for a pooled context, else over real positions)
        or `layer` (over features).
      use_ffn: False = H is R.
      ffn_input: `residual` (as above) or `parallel` (H = R + FFN(X)).
      ffn_pre_ln: False = the feed-forward part has no LayerNorm.
      dropout_rate: in the feed-forward part.
      kernel_init, bias_init: initializers of all linear layers.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, x, mask = ResidualEnhancement(hidden_features=16), jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
      >>> variables = layer.init(jax.random.key(0), x, x, mask, mask)
      >>> out, updates = layer.apply(variables, x, x, mask, mask, train=True, mutable=["batch_stats"])
      >>> out.shape
      (2, 5, 8)
    """

    hidden_features: int
    global_compression: str = "pooled"
    compress_norm: str = "batch"
    use_ffn: bool = True
    ffn_input: str = "residual"
    ffn_pre_ln: bool = True
    dropout_rate: float = 0.0
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array,
        mask: jax.Array,
        source_mask: jax.Array,
        *,
        segments: Segments | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
        axis_name: AxisName = None,
    ) -> jax.Array:
        """Enhances one path's target.

        Args:
          x: float `[B, T, D]`, X; values on padding do not matter, here and in the context.
          context: float `[B, T, D]`, C; for `query_mean` `[B, K, D]`, with `K` = 1 without segments.
          mask: bool `[B, T]`, True where the target is real.
          source_mask: bool `[B, Ts]`, True where the source is real; with segments `Ts` = `T`.
          segments: the conversations of packed rows, `K` at most; None = one per row.
          train: whether dropout is on and batch statistics are this batch's; see `MaskedBatchNorm`.
          row_ids: int32 `[B]`, see `ConversationDropout`.
          axis_name: see `MaskedBatchNorm`.

        Returns:
          `[B, T, D]`, H; zero on padding.

        Raises:
          TypeError, ValueError: for an option that has no such value, or an argument of another kind or shape.
        """
        self._check(x, context, mask, source_mask, segments)
        has_source = source_mask.any(-1, keepdims=True) if segments is None else segments.any(source_mask)
        segments = one_per_row(*mask.shape) if segments is None else segments
        has_target = segments.any(mask)
        context_mask = has_target if self.global_compression == "query_mean" else mask
        x, context = (
            jnp.where(real[..., None], promote_dtype(value, dtype=self.dtype)[0], 0)
            for real, value in ((mask, x), (context_mask, context))
        )
        if self.global_compression in ("per_position", "channel"):
            has_source = (segments.membership() & has_source[..., None]).any(1)
            z = self._compress(context, mask & has_source, train, axis_name)
        else:
            pooled = context if self.global_compression == "query_mean" else segments.mean(context, mask)
            z = segments.broadcast(self._compress(pooled, has_target & has_source, train, axis_name))
        residual = x + z
        if self.global_compression == "pooled_plus_context":
            residual = residual + context
        enhanced = residual
        if self.use_ffn:
            ffn = PositionwiseFeedForward(
                self.hidden_features, self.dropout_rate, self.ffn_pre_ln, name="ffn", **layer_options(self)
            )
            enhanced = residual + ffn(residual if self.ffn_input == "residual" else x, train=train, row_ids=row_ids)
        return jnp.where(mask[..., None], enhanced, 0)

    def _compress(self, context: jax.Array, rows: jax.Array, train: bool, axis_name: AxisName) -> jax.Array:
        """Returns z, zero outside `rows`; its last axis is 1 for `channel`."""
        width, dtypes = context.shape[-1], {"dtype": self.dtype, "param_dtype": self.param_dtype}
        compressed = 1 if self.global_compression == "channel" else width
        z = dense(compressed, width, name="conv", **layer_options(self))(context)
        if self.compress_norm == "batch":
            z = MaskedBatchNorm(name="norm", **dtypes)(z, rows, train=train, axis_name=axis_name)
        else:
            z = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm", **dtypes)(z)
        return jnp.where(rows[..., None], nn.leaky_relu(z), 0)

    def _check(
        self,
        x: jax.Array,
        context: jax.Array,
        mask: jax.Array,
        source_mask: jax.Array,
        segments: Segments | None,
    ) -> None:
        check_at_least_one(hidden_features=self.hidden_features)
        check_choice("global_compression", self.global_compression, COMPRESSIONS)
        check_choice("compress_norm", self.compress_norm, COMPRESS_NORMS)
        check_choice("ffn_input", self.ffn_input, FFN_INPUTS)
        check_rate("dropout_rate", self.dropout_rate)
        if self.global_compression == "channel" and self.compress_norm == "layer":
            raise ValueError(
                "compress_norm: expected batch for global_compression channel, got layer, which makes one number 0"
            )
        check_arrays(x=(x, "float [B, T, D]"), mask=(mask, "bool [B, T]"))
        rows, length, width = x.shape
        check_segments(segments, length, rows)
        queries = (1 if segments is None else segments.count) if self.global_compression == "query_mean" else length
        check_arrays(
            context=(context, f"float [{rows}, {queries}, {width}]"),
            source_mask=(source_mask, f"bool [{rows}, {'Ts' if segments is None else length}]"),
        )
