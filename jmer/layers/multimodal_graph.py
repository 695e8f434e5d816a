"""The graph of MMGCN and MM-DFN, a node for each utterance and modality, and deep convolutions over it."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_choice, check_not_negative, check_positive, check_rate
from jmer.layers.dropout import ConversationDropout
from jmer.layers.graph_recurrence import Edges, LSTMWeights, Weights, propagate, run_layers
from jmer.layers.initializers import Dtype, Initializer, torch_uniform, with_fan_in
from jmer.layers.precision import at_least_float32
from jmer.layers.recurrent import recurrent_weights
from jmer.segments import Segments, check_segments

RECURRENCES = ("none", "lstm")

_KAPPA = 0.99999
"""Keeps the derivative of the arccosine finite where two vectors are equal; needs float32."""


@struct.dataclass
class MultimodalGraph(Edges):
    """Edges of a graph with a node for each utterance and modality, normalized by the degrees of both ends.

    Attributes:
      within: `[B, M, T, T]`, weights between utterances of a modality.
      across: `[B, M, M, T]`, weights between the modalities of an utterance; 0 from a modality to itself.

    Examples:
      >>> within, across = jnp.full((1, 2, 3, 3), 0.25), jnp.array([[0.0, 0.5], [0.5, 0.0]])[None, ..., None]
      >>> graph = MultimodalGraph(within, jnp.broadcast_to(across, (1, 2, 2, 3)))
      >>> print(graph.propagate(jnp.ones((1, 2, 3, 1)))[0, 0, :, 0])
      [1.25 1.25 1.25]
    """

    def propagate(self, x: jax.Array) -> jax.Array:
        r"""Returns each node's sum over its neighbours, itself among them.

        .. math:: p_i^m = \sum_j \hat{S}_{ij}^m x_j^m + \sum_{m' \neq m} \hat{D}_i^{mm'} x_i^{m'}

        Args:
          x: float `[B, M, T, G]`, finite where there is no node.

        Returns:
          The shape of `x`, zero where there is no node.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        check_arrays(
            within=(self.within, "float [B, M, T, T]"),
            across=(self.across, "float [B, M, M, T]"),
            x=(x, "float [B, M, T, G]"),
        )
        within, across, x = promote_dtype(self.within, self.across, x)
        return propagate(Edges(within, across), x)


def angle_graph(
    nodes: jax.Array, present: jax.Array, *, cross_weight: float = 1.0, segments: Segments | None = None
) -> MultimodalGraph:
    r"""Links a conversation's utterances within each modality, and an utterance's modalities (MMGCN, Hu et al., 2021).

    Edges weigh the angle between two nodes' vectors; the derivative passes through it.

    .. math::
        a(u, v) &= 1 - \frac{1}{\pi} \arccos\left(\kappa \frac{u \cdot v}{|u| |v|}\right), \quad \kappa = 0.99999 \\
        S_{ij}^m &= a(z_i^m, z_j^m), \quad D_i^{mm'} = \omega\, a(z_i^m, z_i^{m'}), \quad
        \delta_i^m = \sum_j S_{ij}^m + \sum_{m' \neq m} D_i^{mm'} \\
        \hat{S}_{ij}^m &= S_{ij}^m / \sqrt{\delta_i^m \delta_j^m}, \quad
        \hat{D}_i^{mm'} = D_i^{mm'} / \sqrt{\delta_i^m \delta_i^{m'}}

    A zero vector has a right angle to any other.

    Args:
      nodes: float `[B, M, T, D]`, z; values where there is no node do not matter.
      present: bool `[B, M, T]`, True where an utterance is real and has the modality: elsewhere there is no node.
      cross_weight: ω, at least 0; 0 = modalities apart.
      segments: the conversations of packed rows; None = one per row.

    Returns:
      The graph, at least in float32.

    Raises:
      TypeError, ValueError: for a negative `cross_weight`, or an argument of another kind or shape.

    Examples:
      >>> nodes, present = jax.random.normal(jax.random.key(0), (2, 3, 5, 8)), jnp.ones((2, 3, 5), bool)
      >>> graph = angle_graph(nodes, present)
      >>> graph.within.shape, graph.across.shape
      ((2, 3, 5, 5), (2, 3, 3, 5))
    """
    sizes = check_arrays(nodes=(nodes, "float [B, M, T, D]"), present=(present, "bool [B, M, T]"))
    check_not_negative("cross_weight", cross_weight)
    rows, modalities, length = (sizes[axis] for axis in ("B", "M", "T"))
    check_segments(segments, length, rows)
    unit = _unit_vectors(nodes, present)
    both = present[..., :, None] & present[..., None, :]
    if segments is not None:
        both &= segments.same_segment()[:, None]
    # A product of low precision, an accelerator's default, may exceed 1 by more than κ allows for.
    cosine = jnp.einsum("bmid,bmjd->bmij", unit, unit, precision=jax.lax.Precision.HIGHEST)
    itself = jnp.eye(length, dtype=bool)[None, None]
    # The angle to itself has no derivative, a computed one would be an amplified rounding error.
    own = jnp.where(present[..., None] & itself, 1 - math.acos(_KAPPA) / math.pi, 0)
    within = _angles(cosine, both & ~itself) + own.astype(unit.dtype)
    pairs = present[:, :, None] & present[:, None] & ~jnp.eye(modalities, dtype=bool)[None, :, :, None]
    across = cross_weight * _angles((unit[:, :, None] * unit[:, None]).sum(-1), pairs)
    scale = jax.lax.rsqrt(jnp.where(present, within.sum(-1) + across.sum(2), 1))
    return MultimodalGraph(
        within * scale[..., :, None] * scale[..., None, :], across * scale[:, :, None] * scale[:, None]
    )


def _unit_vectors(nodes: jax.Array, present: jax.Array) -> jax.Array:
    """Returns vectors of length 1, at least in float32; zero, without a derivative, where there is no direction."""
    x = jnp.where(present[..., None], nodes, 0)
    x = at_least_float32(x)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    directed = squares > 1e-24
    return jnp.where(directed, x * jax.lax.rsqrt(jnp.where(directed, squares, 1)), 0)


def _angles(cosine: jax.Array, where: jax.Array) -> jax.Array:
    """Returns edges' weights, 0 where there is none."""
    cosine = jnp.clip(jnp.where(where, cosine, 0), -1, 1)
    return jnp.where(where, 1 - jnp.arccos(_KAPPA * cosine) / math.pi, 0)


class DeepGraphConvolution(nn.Module):
    r"""Convolutions over a multimodal graph that hold on to their input, as many as wanted (GCNII; MMGCN, MM-DFN).

    From nodes :math:`h^0` to :math:`h^L`, with :math:`\theta_l = \ln(\lambda / l + 1)`:

    .. math::
        p &= \mathrm{Propagate}(h^{l-1}) \\
        y &= \mathrm{ReLU}\left(\theta_l [p \,\|\, h^0] W_l + (1 - \theta_l)((1 - \alpha) p + \alpha h^0)\right), \quad
        h^l = y

    With the recurrence `lstm` (MM-DFN, Hu et al., 2022) one LSTM cell, the same for all nodes, runs along the layers of
    each; what it remembers is propagated, and the layers add up:

    .. math:: s^l = \mathrm{LSTM}(h^{l-1}, s^{l-1}), \quad p = \mathrm{Propagate}(s^l), \quad h^l = h^{l-1} + y

    Dropout falls on :math:`h^0` where it enters the first layer, and on each y.

    Attributes:
      num_layers: `L`; 0 = none.
      alpha: α, the share of the input in each layer.
      lamda: λ, how much the layers transform; they do less the deeper they are.
      recurrence: `none` or `lstm`.
      dropout_rate: see above.
      kernel_init: initializer of W `[L, 2G, G]`, with fan-in G, and of the LSTM's kernels.
      bias_init: initializer of the LSTM's biases.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.
      custom_derivative: False = a scan that JAX differentiates itself, in forward mode too.

    References:
      Chen et al., 2020, Simple and Deep Graph Convolutional Networks, arXiv:2007.02133.

    Examples:
      >>> x, present = jax.random.normal(jax.random.key(0), (2, 3, 5, 8)), jnp.ones((2, 3, 5), bool)
      >>> layers = DeepGraphConvolution(num_layers=4)
      >>> layers.init_with_output(jax.random.key(1), x, angle_graph(x, present))[0].shape
      (2, 3, 5, 8)
    """

    num_layers: int
    alpha: float = 0.1
    lamda: float = 0.5
    recurrence: str = "none"
    dropout_rate: float = 0.0
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    custom_derivative: bool = True

    @nn.compact
    def __call__(
        self, x: jax.Array, graph: MultimodalGraph, *, train: bool = False, row_ids: jax.Array | None = None
    ) -> jax.Array:
        """Runs the layers.

        Args:
          x: float `[B, M, T, G]`, the nodes' input h⁰; finite where the graph has no node.
          graph: of these nodes.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          The shape of `x`; values where the graph has no node mean nothing.

        Raises:
          TypeError, ValueError: for an unknown recurrence, a number out of range, or an argument of another kind or
            shape.
        """
        check_arrays(
            within=(graph.within, "float [B, M, T, T]"),
            across=(graph.across, "float [B, M, M, T]"),
            x=(x, "float [B, M, T, G]"),
            row_ids=(row_ids, "int [B]?"),
        )
        check_choice("recurrence", self.recurrence, RECURRENCES)
        check_not_negative("num_layers", self.num_layers)
        check_positive("lamda", self.lamda)
        check_rate("dropout_rate", self.dropout_rate)
        width, stacked_shape = x.shape[-1], (x.shape[0], self.num_layers + 1, *x.shape[1:])
        kernels = self.param(
            "kernels", with_fan_in(self.kernel_init, width), (self.num_layers, 2 * width, width), self.param_dtype
        )
        lstm = self._lstm(width) if self.recurrence == "lstm" else None
        leaves, structure = jax.tree.flatten((x, kernels, Edges(graph.within, graph.across), lstm))
        x, kernels, edges, lstm = jax.tree.unflatten(structure, promote_dtype(*leaves, dtype=self.dtype))
        factors = None
        if train and self.dropout_rate > 0:
            # Drawn before the loop, those of all layers at once.
            ones = jnp.ones(stacked_shape, x.dtype)
            factors = ConversationDropout(self.dropout_rate)(ones, train=True, row_ids=row_ids)
            factors = jnp.moveaxis(factors, 1, 0)
        weights = Weights(_with_identity(kernels, self.alpha, self.lamda), lstm)
        return run_layers(x, edges, weights, factors, custom_derivative=self.custom_derivative)

    def _lstm(self, width: int) -> LSTMWeights:
        weights = recurrent_weights(
            self,
            "lstm",
            width,
            width,
            gates=4,
            kernel_init=self.kernel_init,
            recurrent_kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            param_dtype=self.param_dtype,
        )
        kernel = jnp.concatenate([weights.input_kernel, weights.state_kernel])
        return LSTMWeights(kernel, weights.input_bias + weights.state_bias)


def _with_identity(kernels: jax.Array, alpha: float, lamda: float) -> jax.Array:
    """Returns the matrices by which `p ‖ h⁰` gives all of a layer but its ReLU, `[L, 2G, G]`."""
    count, _, width = kernels.shape
    theta = jnp.log1p(lamda / jnp.arange(1, count + 1, dtype=kernels.dtype))[:, None, None]
    identity = jnp.eye(width, dtype=kernels.dtype)
    kept = jnp.concatenate([(1 - alpha) * identity, alpha * identity])[None]
    return theta * kernels + (1 - theta) * kept
