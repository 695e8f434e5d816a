"""Multi-head attention and the layers of a post-norm transformer encoder, laid out and started as PyTorch's."""

from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.checks import check_arrays, check_at_least_one, check_divides, check_rate
from jmer.layers.attention import attention_weights, check_pair_mask
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import Dtype, Initializer, dense, layer_options, torch_uniform
from jmer.segments import Segments, check_segments

joint_xavier = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
"""The range in which PyTorch's attention starts its three projections: Xavier's for the one matrix `[D, 3D]` of all."""


class MultiHeadAttention(nn.Module):
    r"""Multi-head attention (Vaswani et al., 2017), with biases and dropout on its weights.

    .. math::
        \mathrm{MHA}(Q, K, V) = [h_1 \,\|\, \dots \,\|\, h_H] W_O + b_O, \quad h_i = \mathrm{softmax}\left(
        \frac{(Q W_Q^i + b_Q^i)(K W_K^i + b_K^i)^\top}{\sqrt{d_h}}\right) (V W_V^i + b_V^i)

    Attributes:
      num_heads: number of heads; divides the width.
      features: width of all heads together, and of the output; None = that of the query.
      dropout_rate: on the attention weights.
      output_projection: False = without the last linear layer.
      kernel_init: initializer of the kernels of query, key and value.
      output_kernel_init: initializer of the last layer's kernel.
      bias_init: initializer of all biases.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> attention, x, mask = MultiHeadAttention(num_heads=2), jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
      >>> attention.init_with_output(jax.random.key(0), x, x, x, mask)[0].shape
      (2, 5, 8)
    """

    num_heads: int
    features: int | None = None
    dropout_rate: float = 0.0
    output_projection: bool = True
    kernel_init: Initializer = joint_xavier
    output_kernel_init: Initializer = torch_uniform
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        key_mask: jax.Array,
        *,
        pair_mask: jax.Array | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Attends from the queries to the keys.

        Args:
          query: float `[B, Tq, D]`.
          key: float `[B, Tk, Dk]`.
          value: float `[B, Tk, Dv]`.
          key_mask: bool `[B, Tk]`, True where a key is real; keys and values elsewhere do not matter.
          pair_mask: bool `[B, Tq, Tk]` or `[Tq, Tk]`, True where a query may attend to a key; an axis of 1 is
            broadcast. None = everywhere.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          `[B, Tq, features]`; a query without a valid key gets 0 before the last layer.

        Raises:
          TypeError, ValueError: for heads that do not divide the width, a rate out of range, or an argument of another
            kind or shape.
        """
        sizes = check_arrays(
            query=(query, "float [B, Tq, D]"),
            key=(key, "float [B, Tk, Dk]"),
            value=(value, "float [B, Tk, Dv]"),
            key_mask=(key_mask, "bool [B, Tk]"),
        )
        check_pair_mask(pair_mask, (sizes["B"], sizes["Tq"], sizes["Tk"]))
        check_rate("dropout_rate", self.dropout_rate)
        width = sizes["D"] if self.features is None else self.features
        check_at_least_one(features=width)
        check_divides("num_heads", self.num_heads, width)
        options = layer_options(self)

        def project(x: jax.Array, name: str) -> jax.Array:
            x = dense(width, x.shape[-1], name=name, **options)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, -1)

        key, value = (jnp.where(key_mask[..., None], x, 0) for x in (key, value))
        projected_value = project(value, "value")
        weights = attention_weights(project(query, "query"), project(key, "key"), key_mask, pair_mask=pair_mask)
        weights = ConversationDropout(self.dropout_rate)(weights, train=train, row_ids=row_ids)
        read = jnp.einsum("bhqk,bkhd->bqhd", weights, projected_value)
        read = read.reshape(*read.shape[:-2], width)
        if not self.output_projection:
            return read
        return dense(width, width, name="output", **options | {"kernel_init": self.output_kernel_init})(read)


class PostNormAttention(nn.Module):
    r"""Multi-head attention with a residual connection, normalized after it.

    .. math:: \mathrm{LN}\left(x + \mathrm{Drop}(\mathrm{MHA}(x, S, S))\right)

    Attributes:
      num_heads: number of heads; divides the width.
      dropout_rate: on the attention weights and on the attention's output.
      kernel_init, output_kernel_init, bias_init: see `MultiHeadAttention`.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, mask = PostNormAttention(num_heads=2), jnp.ones((2, 5), bool)
      >>> layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 8)), jnp.ones((2, 5, 8)), mask)[0].shape
      (2, 5, 8)
    """

    num_heads: int
    dropout_rate: float = 0.0
    kernel_init: Initializer = joint_xavier
    output_kernel_init: Initializer = torch_uniform
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        source: jax.Array,
        source_mask: jax.Array,
        *,
        pair_mask: jax.Array | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Attends from `x` to a source.

        Args:
          x: float `[B, Tq, D]`, the queries.
          source: float `[B, Tk, Ds]`, S, from which keys and values come.
          source_mask: bool `[B, Tk]`, True where the source is real; its values elsewhere do not matter.
          pair_mask: bool `[B, Tq, Tk]` or `[Tq, Tk]`, see `MultiHeadAttention`.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          The shape of `x`.

        Raises:
          TypeError, ValueError: see `MultiHeadAttention`.
        """
        check_arrays(x=(x, "float [B, Tq, D]"), source=(source, "float [B, Tk, Ds]"))
        attention = MultiHeadAttention(
            self.num_heads,
            dropout_rate=self.dropout_rate,
            output_kernel_init=self.output_kernel_init,
            name="attention",
            **layer_options(self),
        )
        read = attention(x, source, source, source_mask, pair_mask=pair_mask, train=train, row_ids=row_ids)
        return _added(self, x, read, train, row_ids)


class PostNormFeedForward(nn.Module):
    r"""A feed-forward part with a residual connection, normalized after it.

    .. math:: \mathrm{LN}\left(x + \mathrm{Drop}(\mathrm{Drop}(\mathrm{ReLU}(x W_1 + b_1)) W_2 + b_2)\right)

    Attributes:
      hidden_features: width between the two linear layers.
      dropout_rate: after either layer.
      kernel_init, bias_init: initializers of both layers.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, x = PostNormFeedForward(hidden_features=32), jnp.ones((2, 5, 8))
      >>> layer.init_with_output(jax.random.key(0), x)[0].shape
      (2, 5, 8)
    """

    hidden_features: int
    dropout_rate: float = 0.0
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
        width, inner = x.shape[-1], self.hidden_features
        options = layer_options(self)
        hidden = nn.relu(dense(inner, width, name="inner", **options)(x))
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=row_ids)
        return _added(self, x, dense(width, inner, name="outer", **options)(hidden), train, row_ids)


class TransformerEncoderLayer(nn.Module):
    """A layer of a post-norm transformer encoder over conversations: self-attention, then a feed-forward part.

    Attributes:
      num_heads: number of heads; divides the width.
      hidden_features: width inside the feed-forward part.
      dropout_rate: on the attention weights, on the output of either part, and inside the feed-forward part.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, x = TransformerEncoderLayer(num_heads=2, hidden_features=32), jnp.ones((2, 5, 8))
      >>> mask = jnp.arange(5)[None] < jnp.array([5, 3])[:, None]
      >>> layer.init_with_output(jax.random.key(0), x, mask)[0].shape
      (2, 5, 8)
    """

    num_heads: int
    hidden_features: int = 2048
    dropout_rate: float = 0.0
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
    ) -> jax.Array:
        """Encodes conversations, each utterance with a view of the whole conversation.

        Args:
          x: float `[B, T, D]`; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          `[B, T, D]`, zero where `mask` is False.

        Raises:
          TypeError, ValueError: see `MultiHeadAttention` and `PostNormFeedForward`.
        """
        check_arrays(x=(x, "float [B, T, D]"), mask=(mask, "bool [B, T]"))
        check_segments(segments, x.shape[1], x.shape[0])
        pairs = None if segments is None or segments.count == 1 else segments.same_segment()
        options = _dtypes(self)
        x = jnp.where(mask[..., None], x, 0)
        attend = PostNormAttention(self.num_heads, self.dropout_rate, name="self_attention", **options)
        x = attend(x, x, mask, pair_mask=pairs, train=train, row_ids=row_ids)
        refine = PostNormFeedForward(self.hidden_features, self.dropout_rate, name="feed_forward", **options)
        return jnp.where(mask[..., None], refine(x, train=train, row_ids=row_ids), 0)


class _Dtypes(TypedDict):
    dtype: Dtype | None
    param_dtype: Dtype


def _dtypes(module: Any) -> _Dtypes:
    """Returns a module's dtypes, for the layers inside it."""
    return {"dtype": module.dtype, "param_dtype": module.param_dtype}


def _added(module: Any, x: jax.Array, update: jax.Array, train: bool, row_ids: jax.Array | None) -> jax.Array:
    """Returns LN(x + Drop(update)), with a LayerNorm of the module that is being called."""
    update = ConversationDropout(module.dropout_rate)(update, train=train, row_ids=row_ids)
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm", **_dtypes(module))(x + update)
