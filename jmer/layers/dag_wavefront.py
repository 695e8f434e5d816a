"""The recurrence of all layers of DAG-ERC as a wavefront, for accelerators, with a derivative written by hand.

An accelerator's time depends on the number of operations more than on their size. Layer l (from 0) reads utterance t
at step t + l, so that there is one loop of T + L - 1 steps, whose operations are those of all layers. Products are
merged: a new state is multiplied once by all that it will be needed with. What the derivative needs of the steps is
computed from the states again, for all steps at once.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

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


def wavefront(
    negative_slope: float, weights: Sequence[Weights], x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array
) -> list[jax.Array]:
    """Runs layers over the utterances in order.

    Args:
      negative_slope: of scores below zero.
      weights: of each layer.
      x: `[T, B, H]`, what the lowest layer reads.
      adjacency, same_speaker: bool `[B, T, T]`, see `jmer.layers.dag.predecessor_graph`.

    Returns:
      Each layer's states, `[T, B, H]`.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
    states = _states(negative_slope, stacked, x, skewed(adjacency, same_speaker, len(weights)))
    return [states[i : i + len(x), i] for i in range(len(weights))]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(negative_slope: float, weights: Weights, x: jax.Array, graph: Skewed) -> jax.Array:
    """Returns the states `[S, L, B, H]` by step; those of no utterance mean nothing. `weights` are of all layers."""
    return _run(negative_slope, _kernels(weights), _of_first(weights, x, len(graph.linked)), graph)


def _states_forward(negative_slope, weights, x, graph):
    states = _states(negative_slope, weights, x, graph)
    return states, (weights, x, graph, states)


class _Kernels(NamedTuple):
    """What multiplies states and messages, of all layers.

    Attributes:
      own: `[L, H, K]`, of a state: by both relations (2H) and as a key; for the layer above, but for the highest, both
        GRUs' maps (6H), and as a query.
      message: `[L, H, 6H]`, of a message: both GRUs' maps.
      below_bias, message_bias: `[L, 1, 6H]` each.
      score_bias: `[L, 1]`.
    """

    own: jax.Array
    message: jax.Array
    below_bias: jax.Array
    message_bias: jax.Array
    score_bias: jax.Array


class _Maps(NamedTuple):
    """Linear maps of states, `[..., L, B, _]`; `gates` (6H) and `query` (1) are those of the states below."""

    relations: jax.Array
    key: jax.Array
    gates: jax.Array
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

    own = [weights.same, weights.other]
    if len(weights.key) > 1:
        own += [above(_below_kernel(weights)), columns(weights.key, above(weights.query))]
    else:
        own += [columns(weights.key)]
    kernels = _Kernels(
        own=jnp.concatenate(own, axis=-1),
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


def _maps(product: jax.Array, width: int) -> _Maps:
    """Takes apart a product with `_Kernels.own`."""
    relations, gates, scores = product[..., : 2 * width], product[..., 2 * width : -_SCORES], product[..., -_SCORES:]
    return _Maps(relations, scores[..., 0], gates, scores[..., 1])


def _below(first: jax.Array, values: jax.Array) -> jax.Array:
    """Returns what each layer has below it, `[L, B, ...]`: `first` `[B, ...]`, then `values` but for the highest."""
    return jnp.concatenate([first[None], values[:-1]]) if len(values) > 1 else first[None]


def _all_below(first: jax.Array, values: jax.Array) -> jax.Array:
    """Returns what each layer has below it at each step, `[S, L, B, ...]`, given `first` `[S, B, ...]`."""
    before = jnp.pad(values[:-1], ((1, 0), *((0, 0),) * (values.ndim - 1)))
    return jax.vmap(_below)(first, before)


def _scores(query: jax.Array, keys: jax.Array, negative_slope: float) -> jax.Array:
    """Scores `[..., S]` of predecessors by queries `[...]` and keys `[..., S]`."""
    return nn.leaky_relu(query[..., None] + keys, negative_slope)


def _attention(scores: jax.Array, linked: jax.Array) -> jax.Array:
    highest_first = jnp.where(linked, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(linked, jax.nn.softmax(highest_first), 0)


def _by_relation(attention: jax.Array, same: jax.Array) -> jax.Array:
    """Parts attention `[..., S]` by relation, `[..., 2, S]`."""
    to_same = jnp.where(same, attention, 0)
    return jnp.stack([to_same, attention - to_same], axis=-2)


def _gates(below: jax.Array, message: jax.Array, kernels: _Kernels) -> tuple[Gates, Gates]:
    """Returns the gates of GRU_C and GRU_P, given both maps of the states below and of messages, `[L, B, 6H]`."""
    below, message = below + kernels.below_bias, message + kernels.message_bias
    half = below.shape[-1] // 2
    return (
        gru_gates(below[..., :half], message[..., :half]),
        gru_gates(message[..., half:], below[..., half:]),
    )


def _run(negative_slope: float, kernels: _Kernels, first: _First, graph: Skewed) -> jax.Array:
    steps, layers = graph.linked.shape[:2]
    rows, width = first.x.shape[1:]

    def step(t, carry):
        state, maps, relations, keys, states = carry
        x, x_gates, x_query = (take(of_x, t) for of_x in first)
        scores = _scores(_below(x_query, maps.query) + kernels.score_bias, keys, negative_slope)
        attention = _by_relation(_attention(scores, take(graph.linked, t)), take(graph.same, t))
        message = jnp.einsum("lbrs,slbrh->lbh", attention, relations)
        node, context = _gates(_below(x_gates, maps.gates), _product(message, kernels.message), kernels)
        state = gru_next(node, message) + gru_next(context, _below(x, state))
        maps = _maps(_product(state, kernels.own), width)
        relations = put(relations, maps.relations.reshape(layers, rows, 2, width), t)
        return state, maps, relations, put(keys, maps.key, t, axis=2), put(states, state, t)

    def empty(*shape):
        return jnp.zeros(shape, first.x.dtype)

    start = (
        empty(layers, rows, width),
        _maps(empty(layers, rows, kernels.own.shape[-1]), width),
        empty(steps, layers, rows, 2, width),
        empty(layers, rows, steps),
        empty(steps, layers, rows, width),
    )
    return jax.lax.fori_loop(0, steps, step, start)[-1]


def _states_backward(negative_slope, saved, states_bar):
    weights, x, graph, states = saved
    made = _made(negative_slope, weights, x, graph, states)
    bars = _run_back(negative_slope, weights, graph, made, states_bar)
    of_below, of_messages = jnp.moveaxis(made.factors.maps * bars.states[:, None, :, :, None], 1, 0)
    sums = jnp.einsum("tlbrs,slbh->tlbrh", _by_relation(made.attention, graph.same), states)
    relations_bar = jnp.einsum("tlbrh,tlbk->rlhk", sums, bars.messages)
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
    x_bar += bars.queries[:, 0, :, None] * weights.query[0][None, None]
    return weights_bar, x_bar[: len(x)], None


_states.defvjp(_states_forward, _states_backward)


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
      relations: `[S, L, B, 2, H]`, states by both relations.
      scores, attention: `[S, L, B, S]`.
      factors: the gates' derivatives.
    """

    below: jax.Array
    message: jax.Array
    relations: jax.Array
    scores: jax.Array
    attention: jax.Array
    factors: _Factors


def _made(negative_slope: float, weights: Weights, x: jax.Array, graph: Skewed, states: jax.Array) -> _Made:
    """Computes again what the steps made, for all of them at once."""
    kernels, (steps, layers, rows, width) = _kernels(weights), states.shape
    first = _of_first(weights, x, steps)
    maps = _maps(jnp.einsum("slbh,lhk->slbk", states, kernels.own), width)
    query = _all_below(first.query, maps.query) + kernels.score_bias[None]
    scores = _scores(query, jnp.moveaxis(maps.key, 0, -1)[None], negative_slope)
    attention = _attention(scores, graph.linked)
    relations = maps.relations.reshape(steps, layers, rows, 2, width)
    message = jnp.einsum("tlbrs,slbrh->tlbh", _by_relation(attention, graph.same), relations)
    of_message = jnp.einsum("tlbh,lhk->tlbk", message, kernels.message)
    below = _all_below(first.x, states)
    gates = jax.vmap(_gates, (0, 0, None))(_all_below(first.gates, maps.gates), of_message, kernels)
    return _Made(below, message, relations, scores, attention, _factors(*gates, below, message))


class _Bars(NamedTuple):
    """Gradients of `states` and `messages` `[S, L, B, H]`, of `keys` `[L, B, S]` and of `queries` `[S, L, B]`."""

    states: jax.Array
    messages: jax.Array
    keys: jax.Array
    queries: jax.Array


def _run_back(negative_slope: float, weights: Weights, graph: Skewed, made: _Made, states_bar: jax.Array) -> _Bars:
    steps, layers, rows, width = states_bar.shape
    back, by_relation = _kernels_back(weights), _by_relation(made.attention, graph.same)
    # By predecessor and successor, where it is by successor and predecessor.
    to_successors = jnp.swapaxes(by_relation, 0, -1)

    def step(i, carry):
        bars, below_bar = carry
        t = steps - 1 - i
        sums_bar = jnp.einsum("lbrs,slbh->lbrh", take(to_successors, t), bars.messages)
        state_bar = take(bars.states, t) + _from_above(below_bar)
        state_bar += take(bars.keys, t, axis=2)[..., None] * weights.key[:, None]
        state_bar += _product(sums_bar.reshape(layers, rows, 2 * width), back.relations)
        factors = jax.tree.map(lambda factor: take(factor, t), made.factors)
        below_bar, message_bar = _through_gates(factors, state_bar, back.gates)
        attention_bar = jnp.einsum("lbh,slbrh->lbrs", message_bar, made.relations)
        attention_bar = jnp.where(take(graph.same, t), attention_bar[:, :, 0], attention_bar[:, :, 1])
        attention = take(made.attention, t)
        score_bar = attention * (attention_bar - (attention * attention_bar).sum(-1, keepdims=True))
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
    bars = _Bars(states_bar, empty, jnp.zeros_like(made.scores[0]), jnp.zeros_like(made.scores[..., 0]))
    return jax.lax.fori_loop(0, steps, step, (bars, empty[0]))[0]


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
    """Transposed kernels: `gates` `[2, L, 6H, H]`, in the order of `_Factors`, and `relations` `[L, 2H, H]`."""

    gates: jax.Array
    relations: jax.Array


def _kernels_back(weights: Weights) -> _Back:
    gates = jnp.stack([_below_kernel(weights), _message_kernel(weights)])
    relations = jnp.concatenate([weights.same, weights.other], axis=-1)
    return jax.lax.optimization_barrier(_Back(*(jnp.swapaxes(x, -1, -2) for x in (gates, relations))))


def _through_gates(factors: _Factors, state_bar: jax.Array, kernels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of the states below and of the message, `[L, B, H]` each."""
    of_maps = factors.maps * state_bar[None, :, :, None]
    bars = jnp.einsum("plbk,plkh->plbh", of_maps.reshape(*of_maps.shape[:-2], -1), kernels)
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
    return jnp.einsum("lbh,lhk->lbk", x, kernels)
