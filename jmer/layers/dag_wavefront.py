"""The recurrence of all layers of DAG-ERC as a wavefront, for accelerators, with a derivative written by hand.

An accelerator's time depends on the number of operations more than on their size. Layer l (from 0) reads utterance t
at step t + l, so that there is one loop of T + L - 1 steps, whose operations are those of all layers. Products are
merged: a new state is multiplied once by all that it will be needed with. What the derivative needs of the steps is
computed from the states again, for all steps at once.
"""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers import dag_kernel
from jmer.layers.dag_recurrence import Weights
from jmer.layers.gru import Gates, gru_backward, gru_gates, gru_next
from jmer.layers.recurrent import RecurrentWeights
from jmer.layers.slices import put, take

# Columns for scores, of which two are used; products of a number of columns that 8 does not divide are slower.
_SCORES = 8


class Skewed(NamedTuple):
    """A graph by step, for `S` steps and `L` layers.

    Attributes:
      linked: bool `[S, L, B, S]`, True where the utterance of that step and layer is linked to that of the last axis.
      same: bool `[S, L, B, S]`, True where it is linked to one of the same speaker.
    """

    linked: jax.Array
    same: jax.Array


def skewed(adjacency: jax.Array, same_speaker: jax.Array, layers: int) -> Skewed:
    """Puts a batch's graph (bool `[B, T, T]` each, see `jmer.layers.dag.predecessor_graph`) by step and layer."""

    def by_step(edges):
        late = [jnp.pad(edges, ((0, 0), *((i, layers - 1 - i),) * 2)) for i in range(layers)]
        return jnp.moveaxis(jnp.stack(late), 2, 0)

    return Skewed(by_step(adjacency), by_step(adjacency & same_speaker))


def empty(x: jax.Array, layers: int) -> jax.Array:
    """Returns what `forward` leaves for the way back as zeros."""
    return jnp.zeros((len(x) + layers - 1, layers, *x.shape[1:]), x.dtype)


def forward(
    negative_slope: float, weights: Sequence[Weights], x: jax.Array, graph: Skewed, *, kernel: bool = False
) -> tuple[list[jax.Array], jax.Array]:
    """Runs layers over the utterances in order.

    Args:
      negative_slope: of scores below zero.
      weights: of each layer.
      x: `[T, B, H]`, what the lowest layer reads.
      graph: the links.
      kernel: whether the steps are those of `jmer.layers.dag_kernel`.

    Returns:
      Each layer's states, `[T, B, H]`; and the states by step, `[S, L, B, H]`, which `backward` needs.
    """
    stacked = _stacked(weights)
    first = _of_first(stacked, x, len(graph.linked))
    if kernel:
        states = dag_kernel.run(negative_slope, stacked, first.x, *graph)
    else:
        states = _run(negative_slope, _kernels(stacked), first, graph)
    return [states[i : i + len(x), i] for i in range(len(weights))], states


def _stacked(weights: Sequence[Weights]) -> Weights:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)


class _Kernels(NamedTuple):
    """What multiplies states and messages, of all layers.

    Attributes:
      own: `[L, H, K]`, of a state: for the layer above, but for the highest, both GRUs' maps (6H); as a key, and as a
        query of the layer above.
      relations: `[L, 2H, H]`, of the sums over predecessors of the same and of other speakers.
      message: `[L, H, 6H]`, of a message: both GRUs' maps.
      below_bias, message_bias: `[L, 1, 6H]` each.
      score_bias: `[L, 1]`.
    """

    own: jax.Array
    relations: jax.Array
    message: jax.Array
    below_bias: jax.Array
    message_bias: jax.Array
    score_bias: jax.Array


class _Maps(NamedTuple):
    """Linear maps of states, `[..., L, B, _]`: `gates` (6H) and `query` (1) for the layer above, `key` (1)."""

    gates: jax.Array
    key: jax.Array
    query: jax.Array


class _First(NamedTuple):
    """What the lowest layer reads at each step, `[S, B, H]`, and its maps: both GRUs' `[S, B, 6H]`, query `[S, B]`."""

    x: jax.Array
    gates: jax.Array
    query: jax.Array


def _below_kernel(weights: Weights) -> jax.Array:
    return jnp.concatenate([weights.node.input_kernel, weights.context.state_kernel], axis=-1)


def _message_kernel(weights: Weights) -> jax.Array:
    return jnp.concatenate([weights.node.state_kernel, weights.context.input_kernel], axis=-1)


def _kernels(weights: Weights) -> _Kernels:

    def columns(*vectors):
        return jnp.pad(jnp.stack(vectors, axis=-1), ((0, 0), (0, 0), (0, _SCORES - len(vectors))))

    def above(x):
        return jnp.pad(x[1:], ((0, 1), *((0, 0),) * (x.ndim - 1)))

    own = [above(_below_kernel(weights)), columns(weights.key, above(weights.query))]
    kernels = _Kernels(
        own=jnp.concatenate(own, axis=-1) if len(weights.key) > 1 else columns(weights.key),
        relations=jnp.concatenate([weights.same, weights.other], axis=1),
        message=_message_kernel(weights),
        below_bias=jnp.concatenate([weights.node.input_bias, weights.context.state_bias], axis=-1)[:, None],
        message_bias=jnp.concatenate([weights.node.state_bias, weights.context.input_bias], axis=-1)[:, None],
        score_bias=weights.score_bias[:, None],
    )
    # Otherwise they are put side by side in every step.
    return jax.lax.optimization_barrier(kernels)


def _of_first(weights: Weights, x: jax.Array, steps: int) -> _First:
    x = jnp.pad(x, ((0, steps - len(x)), (0, 0), (0, 0)))
    return _First(x, x @ _below_kernel(weights)[0], x @ weights.query[0])


def _maps(product: jax.Array) -> _Maps:
    """Takes apart a product with `_Kernels.own`."""
    return _Maps(product[..., :-_SCORES], product[..., -_SCORES], product[..., 1 - _SCORES])


def _below(first: jax.Array, values: jax.Array) -> jax.Array:
    """Returns what each layer has below it, `[L, B, ...]`: `first` `[B, ...]`, then `values` but for the highest."""
    return jnp.concatenate([first[None], values[:-1]]) if len(values) > 1 else first[None]


def _all_below(first: jax.Array, values: jax.Array) -> jax.Array:
    """Returns what each layer has below it at each step, `[S, L, B, ...]`, given `first` `[S, B, ...]`."""
    before = jnp.pad(values[:-1], ((1, 0), *((0, 0),) * (values.ndim - 1)))
    return jax.vmap(_below)(first, before)


def _scores(query: jax.Array, keys: jax.Array, negative_slope: float) -> jax.Array:
    """Scores `[..., S]` of predecessors by queries `[...]` and keys `[..., S]`; linear ones without the queries."""
    # The softmax cancels what all predecessors have in common.
    return keys if negative_slope == 1 else nn.leaky_relu(query[..., None] + keys, negative_slope)


def _attention(scores: jax.Array, linked: jax.Array) -> jax.Array:
    highest_first = jnp.where(linked, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(linked, jax.nn.softmax(highest_first), 0)


def _by_relation(attention: jax.Array, same: jax.Array) -> jax.Array:
    """Parts attention `[..., S]` by relation, `[..., 2, S]`."""
    to_same = jnp.where(same, attention, 0)
    return jnp.stack([to_same, attention - to_same], axis=-2)


def _gates(below: jax.Array, message: jax.Array, kernels: _Kernels) -> tuple[Gates, Gates]:
    """Returns the gates of GRU_C and GRU_P, given both maps of the states below and of messages, `[L, B, 6H]`."""
    half = below.shape[-1] // 2
    # Added to a product as a whole, a bias would be laid out for the product to begin with.
    node_below, context_below = (below[..., part] + kernels.below_bias[..., part] for part in _halves(half))
    node_message, context_message = (message[..., part] + kernels.message_bias[..., part] for part in _halves(half))
    return gru_gates(node_below, node_message), gru_gates(context_message, context_below)


def _halves(width: int) -> tuple[slice, slice]:
    return slice(width), slice(width, 2 * width)


def _run(negative_slope: float, kernels: _Kernels, first: _First, graph: Skewed) -> jax.Array:
    steps, layers = graph.linked.shape[:2]
    rows, width = first.x.shape[1:]

    def step(t, carry):
        state, product, keys, states = carry
        x, x_gates, x_query = (take(of_x, t) for of_x in first)
        maps = _maps(product)
        scores = _scores(_below(x_query, maps.query) + kernels.score_bias, keys, negative_slope)
        attention = _by_relation(_attention(scores, take(graph.linked, t)), take(graph.same, t))
        sums = jnp.einsum("lbrs,slbh->lbrh", attention, states).reshape(layers, rows, 2 * width)
        message = _product(sums, kernels.relations)
        node, context = _gates(_below(x_gates, maps.gates), _product(message, kernels.message), kernels)
        state = gru_next(node, message) + gru_next(context, _below(x, state))
        product = _product(state, kernels.own)
        return state, product, put(keys, _maps(product).key, t, axis=2), put(states, state, t)

    def empty(*shape):
        return jnp.zeros(shape, first.x.dtype)

    start = (
        empty(layers, rows, width),
        empty(layers, rows, kernels.own.shape[-1]),
        empty(layers, rows, steps),
        empty(steps, layers, rows, width),
    )
    return jax.lax.fori_loop(0, steps, step, start)[-1]


class _Factors(NamedTuple):
    """Derivatives at each step, by which a new state's gradient is multiplied.

    The first of two is for the states below, the second for the message.

    Attributes:
      maps: `[S, 2, L, B, 6, H]`, of both GRUs' linear maps.
      direct: `[S, 2, L, B, H]`, of what GRU_P keeps of the states below, and GRU_C of the message.
    """

    maps: jax.Array
    direct: jax.Array


class _Made(NamedTuple):
    """What the steps made.

    Attributes:
      below, message: `[S, L, B, H]`, the states below and the messages.
      sums: `[S, L, B, 2, H]`, over predecessors of the same and of other speakers.
      scores: `[S, L, B, S]`.
      attention: `[S, L, B, 2, S]`, by relation.
      factors: the gates' derivatives.
    """

    below: jax.Array
    message: jax.Array
    sums: jax.Array
    scores: jax.Array
    attention: jax.Array
    factors: _Factors


def _made(negative_slope: float, weights: Weights, x: jax.Array, graph: Skewed, states: jax.Array) -> _Made:
    """Computes again what the steps made, for all of them at once."""
    kernels, first = _kernels(weights), _of_first(weights, x, len(states))
    maps = _maps(jnp.einsum("slbh,lhk->slbk", states, kernels.own))
    query = _all_below(first.query, maps.query) + kernels.score_bias[None]
    scores = _scores(query, jnp.moveaxis(maps.key, 0, -1)[None], negative_slope)
    attention = _by_relation(_attention(scores, graph.linked), graph.same)
    sums = jnp.einsum("tlbrs,slbh->tlbrh", attention, states)
    message = jnp.einsum("tlbk,lkh->tlbh", sums.reshape(*sums.shape[:3], -1), kernels.relations)
    of_message = jnp.einsum("tlbh,lhk->tlbk", message, kernels.message)
    below = _all_below(first.x, states)
    gates = jax.vmap(_gates, (0, 0, None))(_all_below(first.gates, maps.gates), of_message, kernels)
    return _Made(below, message, sums, scores, attention, _factors(*gates, below, message))


class _Bars(NamedTuple):
    """Gradients of `states` and `messages` `[S, L, B, H]`, of `keys` `[L, B, S]` and of `queries` `[S, L, B]`."""

    states: jax.Array
    messages: jax.Array
    keys: jax.Array
    queries: jax.Array


def _run_back(negative_slope: float, weights: Weights, made: _Made, states: jax.Array, states_bar: jax.Array) -> _Bars:
    steps, layers, rows, width = states_bar.shape
    # By predecessor and successor, where attention is by successor and predecessor.
    back, to_successors = _kernels_back(weights), jnp.swapaxes(made.attention, 0, -1)

    def step(i, carry):
        bars, below_bar = carry
        t = steps - 1 - i
        messages_bar = jnp.einsum("lbrs,slbh->lbrh", take(to_successors, t), bars.messages)
        state_bar = take(bars.states, t) + _from_above(below_bar)
        state_bar += take(bars.keys, t, axis=2)[..., None] * weights.key[:, None]
        state_bar += _product(messages_bar.reshape(layers, rows, 2 * width), back.sums)
        factors = jax.tree.map(lambda factor: take(factor, t), made.factors)
        below_bar, message_bar = _through_gates(factors, state_bar, back.gates)
        sums_bar = _product(message_bar, back.message).reshape(layers, rows, 2, width)
        attention, attention_bar = take(made.attention, t), jnp.einsum("lbrh,slbh->lbrs", sums_bar, states)
        weighted = (attention * attention_bar).sum(2)
        score_bar = weighted - attention.sum(2) * weighted.sum(-1, keepdims=True)
        queries_bar = bars.queries
        # Linear scores do not depend on their query, which the softmax cancels.
        if negative_slope != 1:
            score_bar = jnp.where(take(made.scores, t) < 0, negative_slope * score_bar, score_bar)
            query_bar = score_bar.sum(-1)
            below_bar += query_bar[..., None] * weights.query[:, None]
            queries_bar = put(queries_bar, query_bar, t)
        bars = _Bars(
            put(bars.states, state_bar, t), put(bars.messages, message_bar, t), bars.keys + score_bar, queries_bar
        )
        return bars, below_bar

    empty = jnp.zeros_like(states_bar)
    bars = _Bars(states_bar, empty, jnp.zeros_like(made.scores[0]), jnp.zeros_like(states_bar[..., 0]))
    return jax.lax.fori_loop(0, steps, step, (bars, empty[0]))[0]


def backward(
    negative_slope: float,
    weights: Sequence[Weights],
    x: jax.Array,
    graph: Skewed,
    states: jax.Array,
    states_bar: Sequence[jax.Array],
    *,
    kernel: bool = False,
) -> tuple[list[Weights], jax.Array]:
    """Returns the gradients of the weights and of `x`, given those of the states; `states` is what `forward` left."""
    stacked, layers = _stacked(weights), len(weights)
    late = [jnp.pad(bar, ((i, layers - 1 - i), (0, 0), (0, 0))) for i, bar in enumerate(states_bar)]
    made = _made(negative_slope, stacked, x, graph, states)
    by_step = jnp.stack(late, axis=1)
    if kernel:
        of_states, messages, scores = dag_kernel.run_back(
            negative_slope, stacked, made.attention, made.scores < 0, states, *made.factors, by_step
        )
        bars = _Bars(of_states, messages, scores.sum(0), scores.sum(-1))
    else:
        bars = _run_back(negative_slope, stacked, made, states, by_step)
    weights_bar, x_bar = _of_inputs(stacked, made, states, bars)
    return [jax.tree.map(operator.itemgetter(i), weights_bar) for i in range(layers)], x_bar[: len(x)]


def _of_inputs(weights: Weights, made: _Made, states: jax.Array, bars: _Bars) -> tuple[Weights, jax.Array]:
    """Returns the gradients of all weights and of what the lowest layer reads at each step."""
    of_below, of_messages = jnp.moveaxis(made.factors.maps * bars.states[:, None, :, :, None], 1, 0)
    relations_bar = jnp.einsum("tlbrh,tlbk->rlhk", made.sums, bars.messages)
    node_input, context_state = _maps_backward(made.below, of_below)
    node_state, context_input = _maps_backward(made.message, of_messages)
    weights_bar = Weights(
        query=jnp.einsum("slb,slbh->lh", bars.queries, made.below),
        key=jnp.einsum("lbs,slbh->lh", bars.keys, states),
        score_bias=bars.queries.sum((0, 2)),
        same=relations_bar[0],
        other=relations_bar[1],
        node=RecurrentWeights(*node_input, *node_state),
        context=RecurrentWeights(*context_input, *context_state),
    )
    x_bar = of_below[:, 0].reshape(*states[:, 0].shape[:2], -1) @ _below_kernel(weights)[0].T
    x_bar += made.factors.direct[:, 0, 0] * bars.states[:, 0]
    return weights_bar, x_bar + bars.queries[:, 0, :, None] * weights.query[0][None, None]


def _factors(node: Gates, context: Gates, below: jax.Array, message: jax.Array) -> _Factors:
    ones = jnp.ones_like(below)
    (of_node, node_direct), (of_context, context_direct) = (
        gru_backward(node, message, ones),
        gru_backward(context, below, ones),
    )
    maps = (
        jnp.concatenate([of_node.input, of_context.state], axis=-1),
        jnp.concatenate([of_node.state, of_context.input], axis=-1),
    )
    return _Factors(
        jnp.stack(maps, axis=1).reshape(len(below), 2, *below.shape[1:-1], 6, below.shape[-1]),
        jnp.stack([context_direct, node_direct], axis=1),
    )


class _Back(NamedTuple):
    """Transposed kernels.

    Attributes:
      gates: `[2, L, 6H, H]`, in the order of `_Factors`.
      sums, message: `[L, 2H, H]` and `[L, H, 2H]`, of both relations: after the sum over successors, and before that
        over predecessors.
    """

    gates: jax.Array
    sums: jax.Array
    message: jax.Array


def _kernels_back(weights: Weights) -> _Back:
    gates = jnp.stack([_below_kernel(weights), _message_kernel(weights)])
    transposed = [jnp.swapaxes(x, -1, -2) for x in (gates, weights.same, weights.other)]
    back = _Back(transposed[0], *(jnp.concatenate(transposed[1:], axis=axis) for axis in (1, 2)))
    return jax.lax.optimization_barrier(back)


def _through_gates(factors: _Factors, state_bar: jax.Array, kernels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of the states below and of the message, `[L, B, H]` each."""
    of_maps = factors.maps * state_bar[None, :, :, None]
    bars = jax.vmap(_product)(of_maps.reshape(*of_maps.shape[:-2], -1), kernels)
    bars += factors.direct * state_bar[None]
    return bars[0], bars[1]


def _from_above(below_bar: jax.Array) -> jax.Array:
    """Returns what each layer's states get from the layer above, `[L, B, H]`."""
    return jnp.concatenate([below_bar[1:], jnp.zeros_like(below_bar[:1])])


def _maps_backward(inputs: jax.Array, maps_bar: jax.Array) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """Returns the gradients of kernel and bias of each GRU, given its inputs and those of its maps."""
    maps_bar = maps_bar.reshape(*inputs.shape[:-1], 2, -1)
    kernels_bar, biases_bar = jnp.einsum("slbh,slbgk->glhk", inputs, maps_bar), maps_bar.sum((0, 2))
    return tuple((kernels_bar[i], biases_bar[:, i]) for i in (0, 1))


def _product(x: jax.Array, kernels: jax.Array) -> jax.Array:
    # What is added to it would be computed before it, as one more operation, for the product to begin with.
    return jax.lax.optimization_barrier(jnp.einsum("lbh,lhk->lbk", x, kernels))
