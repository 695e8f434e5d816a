"""Graphs whose nodes are the utterances of a conversation in each of its modalities (M3NET: Chen et al., 2023).

No edge is stored: hyperedges are means, and the pairwise graph, complete within a modality, is a mask.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays
from jmer.layers.initializers import Dtype, Initializer, torch_uniform, with_fan_in
from jmer.segments import Segments, check_segments, one_per_row


class HypergraphConvolution(nn.Module):
    r"""Convolution over the hyperedges of a conversation, with a bias as its only parameter.

    A hyperedge joins all utterances of a modality, another the modalities of an utterance; each node lies in two. From
    nodes to hyperedges and back to nodes by weighted means:

    .. math::
        c_m = \frac{1}{n} \sum_t Y_{tm}, \quad d_t = \frac{\sum_m \gamma_m Y_{tm}}{\sum_m \gamma_m}, \quad
        Y'_{tm} = \mathrm{LeakyReLU}\left(\frac{w_m c_m + w_0 d_t}{w_m + w_0} + b\right)

    Attributes:
      bias_init: initializer of b.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, nodes, mask = HypergraphConvolution(), jnp.ones((1, 4, 3, 8)), jnp.ones((1, 4), bool)
      >>> layer.init_with_output(jax.random.key(0), nodes, mask)[0].shape
      (1, 4, 3, 8)
    """

    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        nodes: jax.Array,
        mask: jax.Array,
        *,
        segments: Segments | None = None,
        hyperedge_weights: jax.Array | None = None,
        node_weights: jax.Array | None = None,
    ) -> jax.Array:
        """Convolves the nodes of conversations.

        Args:
          nodes: float `[B, T, M, D]`, of M modalities; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.
          hyperedge_weights: float `[M + 1]`, w of the utterance's hyperedge, then of each modality's; None = 1.
          node_weights: float `[M]`, γ; None = 1.

        Returns:
          `[B, T, M, D]`; values where `mask` is False mean nothing.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        nodes, mask, segments = _checked(nodes, mask, segments)
        rows, length, count, width = nodes.shape
        check_arrays(
            hyperedge_weights=(hyperedge_weights, f"float [{count + 1}]?"),
            node_weights=(node_weights, f"float [{count}]?"),
        )
        bias = self.param("bias", self.bias_init, (width,), self.param_dtype)
        nodes, bias = promote_dtype(nodes, bias, dtype=self.dtype)
        together = nodes.reshape(rows, length, count * width)
        context = segments.broadcast(segments.mean(together, mask)).reshape(nodes.shape)
        of_nodes = jnp.ones(count) if node_weights is None else jnp.asarray(node_weights)
        of_hyperedges = jnp.ones(count + 1) if hyperedge_weights is None else jnp.asarray(hyperedge_weights)

        def of_each(share: jax.Array) -> jax.Array:
            return share.astype(nodes.dtype)[None, None, :, None]

        utterance = jnp.sum(of_each(of_nodes / of_nodes.sum()) * nodes, axis=2, keepdims=True)
        share = of_each(of_hyperedges[1:] / (of_hyperedges[1:] + of_hyperedges[0]))
        return nn.leaky_relu(share * context + (1 - share) * utterance + bias[None, None, None])


class FrequencyAdaptiveConvolution(nn.Module):
    r"""Convolution with gates that may be negative, so that it passes differences as well as what is common.

    A node's neighbours are the other utterances in its modality and its utterance in the other modalities, n + M - 2
    nodes in a conversation of n utterances:

    .. math::
        \alpha_{ij} = \tanh(Z_i \cdot w_{target} + Z_j \cdot w_{source} + \beta), \quad
        Z'_i = Z_i + \frac{1}{n + M - 2} \sum_{j \sim i} \alpha_{ij} Z_j

    Attributes:
      kernel_init: initializer of both w, `[D, 1]` each; theirs is a linear layer of 2D inputs.
      bias_init: initializer of β.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    References:
      Bo et al., 2021, Beyond Low-Frequency Information in Graph Convolutional Networks, arXiv:2101.00797.

    Examples:
      >>> layer, nodes, mask = FrequencyAdaptiveConvolution(), jnp.ones((1, 4, 3, 8)), jnp.ones((1, 4), bool)
      >>> layer.init_with_output(jax.random.key(0), nodes, mask)[0].shape
      (1, 4, 3, 8)
    """

    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, nodes: jax.Array, mask: jax.Array, *, segments: Segments | None = None) -> jax.Array:
        """Convolves the nodes of conversations.

        Args:
          nodes: float `[B, T, M, D]`, of M modalities; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.

        Returns:
          `[B, T, M, D]`, zero where `mask` is False.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        nodes, mask, segments = _checked(nodes, mask, segments)
        _, length, count, width = nodes.shape

        def parameter(name: str, init: Initializer, *shape: int) -> jax.Array:
            return self.param(name, with_fan_in(init, 2 * width), shape, self.param_dtype)

        nodes, of_target, of_source, bias = promote_dtype(
            nodes,
            parameter("target_kernel", self.kernel_init, width, 1),
            parameter("source_kernel", self.kernel_init, width, 1),
            parameter("bias", self.bias_init),
            dtype=self.dtype,
        )
        target, source = (nodes @ of_target)[..., 0] + bias, (nodes @ of_source)[..., 0]
        others = mask[:, :, None] & mask[:, None, :] & segments.same_segment() & ~jnp.eye(length, dtype=bool)[None]
        gates = jnp.swapaxes(target, 1, 2)[..., None] + jnp.swapaxes(source, 1, 2)[:, :, None]
        gates = jnp.where(others[:, None], jnp.tanh(gates), 0)
        within = jnp.einsum("bmij,bjmd->bimd", gates, nodes)
        # Products of matrices as small as [M, M] would cost more than this sum.
        gates = jnp.where(~jnp.eye(count, dtype=bool)[None, None], jnp.tanh(target[..., None] + source[:, :, None]), 0)
        across = jnp.sum(gates[..., None] * nodes[:, :, None], axis=3)
        degree = jnp.maximum(others.sum(-1) + count - 1, 1)[..., None, None]
        return nodes + jnp.where(mask[..., None, None], (within + across) / degree, 0)


def _checked(nodes: jax.Array, mask: jax.Array, segments: Segments | None) -> tuple[jax.Array, jax.Array, Segments]:
    """Returns nodes that are zero where no utterance is, the mask and the conversations of each row."""
    check_arrays(nodes=(nodes, "float [B, T, M, D]"), mask=(mask, "bool [B, T]"))
    rows, length = mask.shape
    check_segments(segments, length, rows)
    mask = jnp.asarray(mask)
    return jnp.where(mask[..., None, None], nodes, 0), mask, segments or one_per_row(rows, length)
