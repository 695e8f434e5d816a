"""Relational graph convolution over conversations, whose relations are the two speakers and the order of utterances.

Graphs are dense masks over pairs of utterances, `[B, T, T]`: the second axis is the target, which receives, the last
one the source.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_array, check_arrays, check_at_least_one, check_choice
from jmer.layers.initializers import Dtype, Initializer, each, torch_uniform, with_fan_in
from jmer.segments import Segments, check_segments

RELATIONS = ("speakers", "same_or_other")


def neighbour_window(mask: jax.Array, past: int, future: int, *, segments: Segments | None = None) -> jax.Array:
    r"""Returns the graph in which an utterance is linked to itself and to its neighbours in the conversation.

    Args:
      mask: bool `[B, T]`, True where an utterance is real.
      past: number of earlier utterances that are its neighbours; -1 = all.
      future: number of later ones; -1 = all.
      segments: the conversations of packed rows, between which there is no link; None = one per row.

    Returns:
      bool `[B, T, T]`, True at `[b, i, j]` where :math:`-\text{past} \le j - i \le \text{future}` and both are real.

    Raises:
      TypeError, ValueError: for a number below -1, or an argument of another kind or shape.

    Examples:
      >>> print(neighbour_window(jnp.ones((1, 4), bool), past=1, future=0)[0].astype(int))
      [[1 0 0 0]
       [1 1 0 0]
       [0 1 1 0]
       [0 0 1 1]]
    """
    check_arrays(mask=(mask, "bool [B, T]"))
    for name, number in (("past", past), ("future", future)):
        if number < -1:
            raise ValueError(f"{name}: expected at least 0, or -1 for all, got {number}")
    rows, length = mask.shape
    check_segments(segments, length, rows)
    ahead = jnp.arange(length)[None] - jnp.arange(length)[:, None]
    near = (ahead >= -(length if past < 0 else past)) & (ahead <= (length if future < 0 else future))
    linked = near[None] & mask[:, :, None] & mask[:, None, :]
    return linked if segments is None or segments.count == 1 else linked & segments.same_segment()


def relation_means(
    edges: jax.Array, speakers: jax.Array, num_speakers: int, *, relations: str = "speakers"
) -> jax.Array:
    r"""Returns the weights that average a target's sources within each relation.

    .. math:: w_{ts} = 1 / |N_{r(s \to t)}(t)|

    with :math:`N_r(t)` the sources of t by relation r; 0 where there is no edge.

    Args:
      edges: bool `[B, T, T]`, True at `[b, t, s]` where source s is linked to target t.
      speakers: int `[B, T]`.
      num_speakers, relations: see `RelationalConvolution`.

    Returns:
      float32 `[B, T, T]`.

    Raises:
      TypeError, ValueError: for unknown relations, or an argument of another kind or shape.

    Examples:
      >>> print(relation_means(jnp.ones((1, 3, 3), bool), jnp.array([[0, 1, 1]]), num_speakers=2)[0])
      [[1.  0.5 0.5]
       [1.  0.5 0.5]
       [1.  1.  1. ]]
    """
    check_arrays(edges=(edges, "bool [B, T, T]"), speakers=(speakers, "int [B, T]"))
    check_choice("relations", relations, RELATIONS)
    dtype = jnp.result_type(float)
    weights = jnp.zeros(edges.shape, dtype)
    for directed in _by_direction(edges):
        if relations == "speakers":
            one_hot = _one_hot(speakers, num_speakers, dtype)
            count = directed.astype(dtype) @ one_hot
            share = (1 / jnp.maximum(count, 1)) @ jnp.swapaxes(one_hot, 1, 2)
            weights += jnp.where(directed, share, 0)
        else:
            same = speakers[:, :, None] == speakers[:, None, :]
            for related in (directed & ~same, directed & same):
                weights += related / jnp.maximum(related.sum(-1, keepdims=True), 1)
    return weights


class RelationalConvolution(nn.Module):
    r"""Relational graph convolution (Schlichtkrull et al., 2018), as in DialogueGCN and COGMEN.

    .. math:: h_t = \sum_s w_{ts} \, x_s W_{r(s \to t)} + x_t W_{root} + b

    for weights w that are given. The relation is the source's speaker, the target's speaker and the order of the two,
    :math:`r(s \to t) = 2 (S p_s + p_t) + [s \ge t]`, in which an edge from an utterance to itself counts as one from a
    later utterance. With bases, :math:`W_r = \sum_k C_{rk} V_k`.

    Attributes:
      features: width of the output.
      num_speakers: S; speakers are numbered within their conversation, and further ones count as the last.
      relations: `speakers`, the 2S² relations above, or `same_or_other`, which tells only whether the two speakers are
        the same, :math:`r = 2 [p_s = p_t] + [s \ge t]`, and needs no number of speakers.
      num_bases: number of bases; 0 = each relation has a matrix of its own.
      kernel_init: initializer of each matrix by itself; the default gives bases, coefficients and `root` one range, as
        the library does that DialogueGCN uses.
      bias_init: initializer of b.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, x, mask = RelationalConvolution(6, num_speakers=2), jnp.ones((1, 3, 4)), jnp.ones((1, 3), bool)
      >>> edges, speakers = neighbour_window(mask, 1, 1), jnp.array([[0, 1, 0]])
      >>> weights = relation_means(edges, speakers, num_speakers=2)
      >>> layer.init_with_output(jax.random.key(0), x, mask, speakers, weights)[0].shape
      (1, 3, 6)
    """

    features: int
    num_speakers: int = 2
    relations: str = "speakers"
    num_bases: int = 0
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, speakers: jax.Array, weights: jax.Array) -> jax.Array:
        """Passes messages between utterances along the edges of a graph.

        Args:
          x: float `[B, T, D]`; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          speakers: int `[B, T]`.
          weights: float `[B, T, T]`, the weight of source s for target `[b, t]`; 0 where there is no edge.

        Returns:
          `[B, T, features]`, zero where `mask` is False.

        Raises:
          TypeError, ValueError: for unknown relations, a size out of range, or an argument of another kind or shape.
        """
        sizes = check_arrays(x=(x, "float [B, T, D]"), mask=(mask, "bool [B, T]"), speakers=(speakers, "int [B, T]"))
        check_array("weights", weights, "float [B, T, T]", sizes)
        check_at_least_one(features=self.features, num_speakers=self.num_speakers)
        check_choice("relations", self.relations, RELATIONS)
        width = sizes["D"]
        kernel_init, bias_init = (
            with_fan_in(init, width * max(self.num_bases, 1)) for init in (self.kernel_init, self.bias_init)
        )
        root = self.param("root", kernel_init, (width, self.features), self.param_dtype)
        bias = self.param("bias", bias_init, (self.features,), self.param_dtype)
        matrices = self._matrices(width, kernel_init)
        x, weights = jnp.where(mask[..., None], x, 0), jnp.where(mask[:, :, None] & mask[:, None, :], weights, 0)
        x, root, bias, *matrices = promote_dtype(x, root, bias, *matrices, dtype=self.dtype)
        weights = weights.astype(x.dtype)
        if self.relations == "same_or_other":
            received = _received_by_sameness(x, _composed(matrices), speakers, weights)
        else:
            one_hot = _one_hot(speakers, self.num_speakers, x.dtype)
            # With few relations their matrices are less work than the bases.
            few = 2 * self.num_speakers**2 <= max(self.num_bases, 1)
            through_bases = len(matrices) == 2 and not few
            messages = (
                _messages_through_bases(x, matrices, one_hot)
                if through_bases
                else _messages(x, _composed(matrices), one_hot)
            )
            received = _received(messages, one_hot, weights)
        return jnp.where(mask[..., None], received + x @ root + bias[None, None], 0)

    def _matrices(self, width: int, kernel_init: Initializer) -> list[jax.Array]:
        """Returns the relations' matrices `[R, D, E]`, or coefficients `[R, K]` and bases `[K, D, E]`."""
        count = 4 if self.relations == "same_or_other" else 2 * self.num_speakers**2
        shape = width, self.features
        if not self.num_bases:
            return [self.param("kernels", each(kernel_init), (count, *shape), self.param_dtype)]
        return [
            self.param("coefficients", kernel_init, (count, self.num_bases), self.param_dtype),
            self.param("basis", each(kernel_init), (self.num_bases, *shape), self.param_dtype),
        ]


def _composed(matrices: list[jax.Array]) -> jax.Array:
    """Returns the relations' matrices, `[R, D, E]`."""
    return jnp.einsum("rk,kde->rde", *matrices) if len(matrices) == 2 else matrices[0]


def _messages(x: jax.Array, kernels: jax.Array, one_hot: jax.Array) -> jax.Array:
    """Returns the messages of each source to targets of each speaker after and before it, `[B, T, S, 2, E]`.

    Args:
      x: `[B, T, D]`.
      kernels: `[2S², D, E]`.
      one_hot: one-hot speakers `[B, T, S]`.
    """
    (_, width, features), speakers = kernels.shape, one_hot.shape[-1]
    # A row of zeros for each other speaker, so that all relations are one product.
    apart = (one_hot[..., None] * x[:, :, None]).reshape(*x.shape[:2], speakers * width)
    by_source = jnp.swapaxes(kernels.reshape(speakers, 2 * speakers, width, features), 1, 2)
    messages = apart @ by_source.reshape(speakers * width, 2 * speakers * features)
    return messages.reshape(*x.shape[:2], speakers, 2, features)


def _messages_through_bases(x: jax.Array, matrices: list[jax.Array], one_hot: jax.Array) -> jax.Array:
    """Returns `_messages` by coefficients `[2S², K]` and bases `[K, D, E]`, without making the matrices."""
    coefficients, basis = matrices
    (bases, width, features), speakers = basis.shape, one_hot.shape[-1]
    projected = (x @ jnp.swapaxes(basis, 0, 1).reshape(width, bases * features)).reshape(*x.shape[:2], bases, features)
    own = _selected(coefficients.reshape(speakers, 2 * speakers * bases), one_hot)
    own = own.reshape(*x.shape[:2], 2 * speakers, bases)
    return jnp.einsum("btrk,btke->btre", own, projected).reshape(*x.shape[:2], speakers, 2, features)


def _received(messages: jax.Array, one_hot: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the sum of the messages `[B, T, S, 2, E]` to each target, `[B, T, E]`."""
    rows, length, speakers, _, features = messages.shape
    sources = jnp.moveaxis(messages, 3, 1).reshape(rows, 2 * length, speakers * features)
    received = jnp.concatenate(_by_direction(weights), axis=-1) @ sources
    return jnp.sum(received.reshape(rows, length, speakers, features) * one_hot[..., None], axis=2)


def _received_by_sameness(x: jax.Array, kernels: jax.Array, speakers: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the sum of the messages to each target, `[B, T, E]`, by the four relations of `kernels` `[4, D, E]`."""
    same = speakers[:, :, None] == speakers[:, None, :]
    by_relation = [jnp.where(related, directed, 0) for related in (~same, same) for directed in _by_direction(weights)]
    messages = jnp.einsum("btd,rde->brte", x, kernels)
    return jnp.concatenate(by_relation, axis=-1) @ messages.reshape(len(x), -1, kernels.shape[-1])


def _by_direction(pairs: jax.Array) -> list[jax.Array]:
    """Returns the pairs `[B, T, T]` whose source comes before the target, and the others; zero elsewhere."""
    before = jnp.tri(pairs.shape[-1], k=-1, dtype=bool)[None]
    none = jnp.zeros((), pairs.dtype)
    return [jnp.where(before, pairs, none), jnp.where(before, none, pairs)]


def _one_hot(speakers: jax.Array, count: int, dtype: Dtype) -> jax.Array:
    """Returns speakers `[B, T]` as rows of one 1, `[B, T, S]`; those beyond the last number count as the last."""
    return jax.nn.one_hot(jnp.clip(speakers, 0, count - 1), count, dtype=dtype)


def _selected(table: jax.Array, one_hot: jax.Array) -> jax.Array:
    """Returns rows of a table; a product, which must not round on an accelerator, has no scatter as its derivative."""
    return jnp.matmul(one_hot, table, precision=jax.lax.Precision.HIGHEST)
