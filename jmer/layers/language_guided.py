"""The blocks of LFVD's Language-Focused Augmented Transformer (Eqs. 4-9)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.attention import attention_weights
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import dense
from jmer.segments import Segments, one_per_row


class LanguageGuidedBlock(nn.Module):
    """Lets queries from one stream read another, then refines what was read (LFVD Eqs. 4-6; Eq. 7 with one stream).

    .. math::
        \\tilde X = MLA(Q, K, V), \\bar X = LN(\\tilde X + R), X' = LN(FFN(\\bar X) + \\bar X)

    Attributes:
      num_heads: attention heads; they share the width.
      ffn_mult: inner width of the feed-forward part as a multiple of the width.
      dropout_rate: rate, on the attention's and the feed-forward part's output and inside the latter.
      qkv_bias: whether the projections have biases; Eq. 4 has none.
      project_query: False = the targets are queries already, projected by a layer that blocks share.
      initialization: see `jmer.layers.initializers`.
    """

    num_heads: int
    ffn_mult: int = 4
    dropout_rate: float = 0.0
    qkv_bias: bool = False
    project_query: bool = True
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(
        self,
        target: jax.Array,
        source: jax.Array,
        residual: jax.Array,
        source_mask: jax.Array,
        train: bool = False,
        pair_mask: jax.Array | None = None,
        row_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Reads `source` for `target`.

        Args:
          target: `[B, Tq, D]`, gives the queries.
          source: `[B, Tk, D]`, gives keys and values.
          residual: `[B, Tq, D]`, added to what was read (Eq. 6 as printed adds the source).
          source_mask: bool `[B, Tk]`, True where the source is real.
          train: whether dropout is on; needs the random stream `dropout` then.
          pair_mask: bool `[B, Tq, Tk]` or `[Tq, Tk]`, True where a query may see a key; None = everywhere.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          `[B, Tq, D]` and the attention weights `[B, H, Tq, Tk]`.

        Raises:
          ValueError: if the heads do not divide the width.
        """
        width = target.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"{self.num_heads} attention heads do not divide the width {width}")

        def layer(features, fan_in, name, use_bias=True):
            return dense(features, fan_in, use_bias=use_bias, scheme=self.initialization, name=name)

        def project(x, name):
            return split(layer(width, width, name, self.qkv_bias)(x))

        def split(x):
            return x.reshape(*x.shape[:-1], self.num_heads, width // self.num_heads)

        def drop(x):
            return ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)

        query = project(target, "query_projection") if self.project_query else split(target)
        key = project(source, "key_projection")
        value = project(source, "value_projection")
        weights = attention_weights(query, key, source_mask, pair_mask=pair_mask)
        heads = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(target.shape)
        read = drop(layer(width, width, "attention_output")(heads))
        x = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="attention_norm")(read + residual)
        inner = drop(nn.relu(layer(self.ffn_mult * width, width, "ffn_inner")(x)))
        refined = drop(layer(width, self.ffn_mult * width, "ffn_output")(inner))
        return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="ffn_norm")(refined + x), weights


class ConversationAtmosphere(nn.Module):
    """Distils a conversation into one emotional-atmosphere vector with a learnt token (LFVD Eq. 9).

    Attributes:
      num_heads, ffn_mult, dropout_rate, qkv_bias, initialization: see `LanguageGuidedBlock`.
      causal: True = a token per utterance that sees this and earlier utterances only.
    """

    num_heads: int
    ffn_mult: int = 4
    dropout_rate: float = 0.0
    qkv_bias: bool = False
    causal: bool = False
    initialization: str = "torch_uniform"

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
        """Reads conversations.

        Args:
          x: `[B, T, D]`.
          mask: bool `[B, T]`.
          segments: the conversations of each row, `K` at most; None = one.
          train, row_ids: see `LanguageGuidedBlock`.

        Returns:
          The atmosphere of each conversation, `[B, K, D]`, or causally at each utterance, `[B, T, D]`; the utterances
          after the block, `[B, T, D]`; the tokens' attention over the token and the utterances, `[B, H, K, 1 + T]` or
          `[B, H, T, 1 + T]`.
        """
        batch, length, width = x.shape
        segments = one_per_row(batch, length) if segments is None else segments
        token = self.param("token", nn.initializers.normal(0.02), (width,))
        tokens = length if self.causal else segments.count
        queries = jnp.concatenate([jnp.broadcast_to(token, (batch, tokens, width)), x], axis=1)
        # All copies of the token are the same key.
        keys = queries[:, tokens - 1 :]
        key_mask = jnp.concatenate([jnp.ones((batch, 1), bool), mask], axis=1)
        utterances = segments.together()
        if self.causal:
            utterances = utterances & jnp.tri(length, dtype=bool)[None]
        seen = jnp.concatenate([utterances if self.causal else segments.membership(), utterances], axis=1)
        pair_mask = jnp.concatenate([jnp.ones((batch, tokens + length, 1), bool), seen], axis=2)
        block = LanguageGuidedBlock(
            self.num_heads,
            self.ffn_mult,
            self.dropout_rate,
            self.qkv_bias,
            initialization=self.initialization,
            name="block",
        )
        out, weights = block(queries, keys, queries, key_mask, train=train, pair_mask=pair_mask, row_ids=row_ids)
        return out[:, :tokens], out[:, tokens:], weights[:, :, :tokens]
