"""The blocks of LFVD's language-focused augmented transformer (Eqs. 4-9)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_at_least_one, check_divides, check_rate
from jmer.layers.attention import attention_weights, check_pair_mask
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import Dtype, Initializer, dense, layer_options, torch_uniform
from jmer.segments import Segments, check_segments, one_per_row


class LanguageGuidedBlock(nn.Module):
    r"""A transformer block whose queries come from one stream, keys and values from another (LFVD's Eqs. 4-7).

    .. math::
        Q = X_t W_Q, \quad K = X_s W_K, \quad V = X_s W_V \quad (4) \\
        \mathrm{MLA}(Q, K, V) = [h_1 \,\|\, \dots \,\|\, h_H] W_o, \quad
        h_i = \mathrm{softmax}\left(\frac{Q_i K_i^\top}{\sqrt{d_h}}\right) V_i \quad (5) \\
        \tilde X = \mathrm{MLA}(Q, K, V), \quad \bar X = \mathrm{LN}(\tilde X + R), \quad
        X' = \mathrm{LN}(\mathrm{FFN}(\bar X) + \bar X) \quad (6)

    With one stream as target, source and residual it is Eq. 7.

    Attributes:
      num_heads: number of attention heads; divides the width.
      hidden_features: width inside the feed-forward part; None = 4 times the width.
      dropout_rate: on the output of the attention and of the feed-forward part, and inside the latter.
      qkv_bias: whether the projections have biases; Eq. 4 has none.
      project_query: False = the target is the query already, projected by a layer that blocks share.
      kernel_init, bias_init: initializers of all linear layers.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> text, audio, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
      >>> block = LanguageGuidedBlock(num_heads=2)
      >>> (out, weights), _ = block.init_with_output(jax.random.key(0), text, audio, audio, mask)
      >>> out.shape, weights.shape
      ((2, 5, 8), (2, 2, 5, 5))
    """

    num_heads: int
    hidden_features: int | None = None
    dropout_rate: float = 0.0
    qkv_bias: bool = False
    project_query: bool = True
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        target: jax.Array,
        source: jax.Array,
        residual: jax.Array,
        source_mask: jax.Array,
        *,
        pair_mask: jax.Array | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Attends from the target to the source.

        Args:
          target: float `[B, Tq, D]`, from which the queries come.
          source: float `[B, Tk, D]`, from which keys and values come.
          residual: float `[B, Tq, D]`, R, added to the attention's output (Eq. 6 as printed adds the source).
          source_mask: bool `[B, Tk]`, True where the source is real; its values elsewhere do not matter.
          pair_mask: bool `[B, Tq, Tk]` or `[Tq, Tk]`, True where a query may attend to a key; None = everywhere.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          `[B, Tq, D]`, and the attention weights `[B, H, Tq, Tk]`.

        Raises:
          TypeError, ValueError: for heads that do not divide the width, a size or rate out of range, or an argument of
            another kind or shape.
        """
        sizes = check_arrays(
            target=(target, "float [B, Tq, D]"),
            source=(source, "float [B, Tk, D]"),
            residual=(residual, "float [B, Tq, D]"),
            source_mask=(source_mask, "bool [B, Tk]"),
        )
        check_pair_mask(pair_mask, (sizes["B"], sizes["Tq"], sizes["Tk"]))
        width = sizes["D"]
        _check_options(self, width)
        inner = 4 * width if self.hidden_features is None else self.hidden_features
        target, source, residual = (promote_dtype(x, dtype=self.dtype)[0] for x in (target, source, residual))
        source = jnp.where(source_mask[..., None], source, 0)

        def linear(features, fan_in, name, use_bias=True):
            return dense(features, fan_in, use_bias=use_bias, name=name, **layer_options(self))

        def project(x, name):
            return split(linear(width, width, name, self.qkv_bias)(x))

        def split(x):
            return x.reshape(*x.shape[:-1], self.num_heads, width // self.num_heads)

        def drop(x):
            return ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)

        def norm(x, name):
            options = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name, **options)(x)

        query = project(target, "query_projection") if self.project_query else split(target)
        key = project(source, "key_projection")
        value = project(source, "value_projection")
        weights = attention_weights(query, key, source_mask, pair_mask=pair_mask)
        heads = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(target.shape)
        attended = drop(linear(width, width, "attention_output")(heads))
        x = norm(attended + residual, "attention_norm")
        hidden = drop(nn.relu(linear(inner, width, "ffn_inner")(x)))
        refined = drop(linear(width, inner, "ffn_output")(hidden))
        return norm(refined + x, "ffn_norm"), weights


class ConversationAtmosphere(nn.Module):
    r"""Summarizes a conversation in one vector, the output of a learned token that attends to all of it (LFVD's Eq. 9).

    .. math:: [t \,;\, \hat X] = \mathrm{Block}([e \,;\, X])

    with e the token, `Block` a `LanguageGuidedBlock` of one stream, and t the atmosphere.

    Attributes:
      num_heads, hidden_features, dropout_rate, qkv_bias: see `LanguageGuidedBlock`.
      causal: True = a token per utterance, which attends to this and earlier utterances only.
      kernel_init, bias_init: initializers of all linear layers; e is drawn from N(0, 0.02²).
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, x, mask = ConversationAtmosphere(num_heads=2), jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
      >>> (atmosphere, utterances, weights), _ = layer.init_with_output(jax.random.key(0), x, mask)
      >>> atmosphere.shape, utterances.shape, weights.shape
      ((2, 1, 8), (2, 5, 8), (2, 2, 1, 6))
    """

    num_heads: int
    hidden_features: int | None = None
    dropout_rate: float = 0.0
    qkv_bias: bool = False
    causal: bool = False
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        *,
        segments: Segments | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Summarizes conversations.

        Args:
          x: float `[B, T, D]`; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows, `K` at most; None = one per row.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          The atmosphere of each conversation, `[B, K, D]`, or of a causal layer at each utterance, `[B, T, D]`; the
          utterances after the block, `[B, T, D]`; the tokens' attention over the token and the utterances,
          `[B, H, K, 1 + T]` or `[B, H, T, 1 + T]`.

        Raises:
          TypeError, ValueError: see `LanguageGuidedBlock`.
        """
        check_arrays(x=(x, "float [B, T, D]"), mask=(mask, "bool [B, T]"))
        rows, length, width = x.shape
        check_segments(segments, length, rows)
        _check_options(self, width)
        segments = one_per_row(rows, length) if segments is None else segments
        token = self.param("token", nn.initializers.normal(0.02), (width,), self.param_dtype)
        x, token = promote_dtype(jnp.where(mask[..., None], x, 0), token, dtype=self.dtype)
        tokens = length if self.causal else segments.count
        queries = jnp.concatenate([jnp.broadcast_to(token, (rows, tokens, width)), x], axis=1)
        # All copies of the token are the same key.
        keys = queries[:, tokens - 1 :]
        key_mask = jnp.concatenate([jnp.ones((rows, 1), bool), mask], axis=1)
        utterances = segments.same_segment()
        if self.causal:
            utterances = utterances & jnp.tri(length, dtype=bool)[None]
        visible = jnp.concatenate([utterances if self.causal else segments.membership(), utterances], axis=1)
        pair_mask = jnp.concatenate([jnp.ones((rows, tokens + length, 1), bool), visible], axis=2)
        block = LanguageGuidedBlock(
            self.num_heads,
            self.hidden_features,
            self.dropout_rate,
            self.qkv_bias,
            name="block",
            **layer_options(self),
        )
        out, weights = block(queries, keys, queries, key_mask, pair_mask=pair_mask, train=train, row_ids=row_ids)
        return out[:, :tokens], out[:, tokens:], weights[:, :, :tokens]


def _check_options(module: LanguageGuidedBlock | ConversationAtmosphere, width: int) -> None:
    check_divides("num_heads", module.num_heads, width)
    check_rate("dropout_rate", module.dropout_rate)
    if module.hidden_features is not None:
        check_at_least_one(hidden_features=module.hidden_features)
