"""The recurrence inside a layer of DAG-ERC, with a derivative written by hand.

What depends on the layer below alone is computed for all utterances before the loop, the weights' gradients after it,
each as one product; the loop keeps only what must wait for the predecessors. Its two GRUs advance as one of twice the
width. A node's predecessors are read in pieces, as many as the farthest one needs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.recurrent import GRUWeights

# Predecessors at window 1 hardly lie farther back than this, so that one piece is read as a rule. An accelerator reads
# a whole conversation at once.
CPU_PIECE = 16


class Weights(NamedTuple):
    """A layer's weights.

    Attributes:
      query, key: `[H]` each, score an utterance and its predecessor.
      score_bias: `[]`.
      same, other: `[H, H]` each, transform the sums over predecessors of the same and of other speakers.
      node: GRU_C, whose input is the layer below and whose state the message.
      context: GRU_P, whose input is the message and whose state the layer below.
    """

    query: jax.Array
    key: jax.Array
    score_bias: jax.Array
    same: jax.Array
    other: jax.Array
    node: GRUWeights
    context: GRUWeights


class Links(NamedTuple):
    """A graph by time; the last of `W` entries is the utterance before, the one before it two before, and so on.

    Attributes:
      adjacency: bool `[T, B, W]`, True where that predecessor is linked.
      same_speaker: bool `[T, B, W]`, True where its speaker is the same.
      pieces: int32 `[T]`, the first piece of the `W` entries in which any row has a link.
    """

    adjacency: jax.Array
    same_speaker: jax.Array
    pieces: jax.Array


def links(adjacency: jax.Array, same_speaker: jax.Array) -> Links:
    """Puts a batch's graph (bool `[B, T, T]` each, see `jmer.layers.dag.predecessor_graph`) by time and distance."""
    length = adjacency.shape[1]
    window = -(-length // _piece(length)) * _piece(length)
    predecessor = jnp.arange(length)[:, None] - window + jnp.arange(window)[None]

    def by_distance(edges):
        index = jnp.broadcast_to(jnp.maximum(predecessor, 0)[None], (len(edges), *predecessor.shape))
        return jnp.where(predecessor[None] >= 0, jnp.take_along_axis(edges, index, axis=2), False)

    adjacency, same_speaker = (jnp.moveaxis(by_distance(edges), 1, 0) for edges in (adjacency, same_speaker))
    linked = adjacency.any(1)
    reach = jnp.where(linked.any(-1), window - linked.argmax(-1), 0)
    return Links(adjacency, same_speaker, (window - _highest_of_all(reach)) // _piece(length))


@jax.custom_batching.custom_vmap
def _highest_of_all(number: jax.Array) -> jax.Array:
    """Returns `number`, and under `jax.vmap` the highest of its copies for all of them.

    A loop that has one number of steps for all copies stays one; with several, it would be taken for each of them.
    """
    return number


@_highest_of_all.def_vmap
def _highest(axis_size: int, in_batched: list[bool], number: jax.Array) -> tuple[jax.Array, bool]:
    return _highest_of_all(number.max(0) if in_batched[0] else number), False


def _piece(length: int) -> int:
    return min(length, CPU_PIECE) if jax.default_backend() == "cpu" else length


class _History(NamedTuple):
    """What the steps leave for the way back.

    attention `[T, B, 2, W]`; sums `[T, B, 2H]`; message `[T, B, H]`; of both GRUs reset, update and candidate gates and
    the state's part of the candidate, `[T, B, 2H]` each.
    """

    attention: jax.Array
    sums: jax.Array
    message: jax.Array
    reset: jax.Array
    update: jax.Array
    candidate: jax.Array
    candidate_state: jax.Array


class _Gradients(NamedTuple):
    """What the steps back leave: gradients of score `[T, B]`, state and message `[T, B, H]`, GRU sums `[T, B, 6H]`."""

    score: jax.Array
    state: jax.Array
    message: jax.Array
    from_below: jax.Array
    from_message: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recurrence(slope: float, weights: Weights, x: jax.Array, graph: Links) -> jax.Array:
    """Runs one layer over the utterances in order.

    Args:
      slope: of a score below zero.
      weights: the layer's.
      x: `[T, B, H]`, the layer below.
      graph: the links.

    Returns:
      `[T, B, H]`.
    """
    return _in_steps(_forward(slope, weights, x, graph, keep=False)[0], x)


def _recurrence_forward(slope, weights, x, graph):
    nodes, keys, query, history = _forward(slope, weights, x, graph, keep=True)
    return _in_steps(nodes, x), (weights, x, graph, nodes, keys, query, history)


def _forward(slope: float, weights: Weights, x: jax.Array, graph: Links, *, keep: bool):
    """Returns nodes `[B, W + T, H]` and keys `[B, W + T]`, both `W` entries late, the queries and the history."""
    (steps, rows, width), window = x.shape, graph.adjacency.shape[-1]

    from_below, to_message, to_grus = _maps(weights, joined=keep)
    hoisted = from_below(x)
    query = x @ weights.query + weights.score_bias

    def step(t, carry):
        nodes, keys, history = carry
        linked, same = _at(graph.adjacency, t), _at(graph.same_speaker, t)
        score = nn.leaky_relu(_at(query, t)[:, None] + _slice(keys, t, window, 1), slope)
        attention = jax.nn.softmax(score, where=linked)
        to_same = jnp.where(same, attention, 0)
        attention = jnp.stack([to_same, attention - to_same], axis=1)
        sums = _sum_over_predecessors(attention, nodes, graph.pieces[t], t).reshape(rows, -1)
        message = to_message(sums)
        gates = _gates(_at(hoisted, t), to_grus(message))
        _, update, candidate, _ = gates
        both = (1 - update) * candidate + update * jnp.concatenate([message, _at(x, t)], axis=-1)
        node = both[:, :width] + both[:, width:]
        nodes, keys = _put(nodes, node, t + window, 1), _put(keys, node @ weights.key, t + window, 1)
        if keep:
            made = _History(attention, sums, message, *gates)
            history = jax.tree.map(lambda buffer, value: _put(buffer, value, t, 0), history, made)
        return nodes, keys, history

    def empty(*shape):
        return jnp.zeros(shape, x.dtype)

    both_widths = [empty(steps, rows, 2 * width) for _ in range(4)]
    history = _History(
        empty(steps, rows, 2, window), empty(steps, rows, 2 * width), empty(steps, rows, width), *both_widths
    )
    start = (empty(rows, window + steps, width), empty(rows, window + steps), history if keep else None)
    nodes, keys, history = jax.lax.fori_loop(0, steps, step, start)
    return nodes, keys, query, history


def _recurrence_backward(slope, saved, nodes_bar):
    weights, x, graph, nodes, keys, query, history = saved
    (steps, rows, width), window = x.shape, graph.adjacency.shape[-1]
    # Laid out once for products that would otherwise run along the memory's slow direction at every step.
    joined = _join(weights)
    relation_back, message_back = jax.lax.optimization_barrier((joined.relation.T, joined.message.T))

    def step(i, carry):
        nodes_bar, keys_bar, gradients = carry
        t = steps - 1 - i
        made, below = jax.tree.map(lambda buffer: _at(buffer, t), (history, x))
        node_bar = _at(nodes_bar, t + window, 1) + _at(keys_bar, t + window, 1)[:, None] * weights.key[None]
        from_below_bar, from_message_bar, message_bar, state_bar = _gates_backward(made, below, node_bar)
        message_bar = message_bar + from_message_bar @ message_back
        sums_bar = (message_bar @ relation_back).reshape(rows, 2, width)
        nodes_bar, attention_bar = _back_to_predecessors(made.attention, sums_bar, nodes, nodes_bar, graph.pieces[t], t)
        attention_bar = jnp.where(_at(graph.same_speaker, t), attention_bar[:, 0], attention_bar[:, 1])
        attention = made.attention.sum(1)
        score_bar = attention * (attention_bar - (attention * attention_bar).sum(-1, keepdims=True))
        score = _at(query, t)[:, None] + _slice(keys, t, window, 1)
        score_bar = jnp.where(score < 0, slope * score_bar, score_bar)
        keys_bar = _add(keys_bar, score_bar, t, 1)
        left = _Gradients(score_bar.sum(-1), state_bar, message_bar, from_below_bar, from_message_bar)
        return nodes_bar, keys_bar, jax.tree.map(lambda buffer, value: _put(buffer, value, t, 0), gradients, left)

    gradients = _Gradients(
        *(jnp.zeros((steps, rows, *rest), x.dtype) for rest in ((), (width,), (width,), (6 * width,), (6 * width,)))
    )
    late = jnp.pad(jnp.moveaxis(nodes_bar, 0, 1), ((0, 0), (window, 0), (0, 0)))
    _, keys_bar, gradients = jax.lax.fori_loop(0, steps, step, (late, jnp.zeros_like(keys), gradients))

    below, message = gradients.from_below, gradients.from_message
    joined_bar = _Joined(
        below=_outer(x, below),
        below_bias=below.sum((0, 1)),
        relation=_outer(history.sums, gradients.message),
        message=_outer(history.message, message),
        message_bias=message.sum((0, 1)),
    )
    weights_bar = Weights(
        jnp.einsum("tb,tbh->h", gradients.score, x),
        jnp.einsum("bs,bsh->h", keys_bar, nodes),
        gradients.score.sum(),
        *_separate(joined_bar),
    )
    x_bar = below @ joined.below.T + gradients.state + gradients.score[..., None] * weights.query[None, None]
    return weights_bar, x_bar, None


recurrence.defvjp(_recurrence_forward, _recurrence_backward)


class _Joined(NamedTuple):
    """Both GRUs' matrices as one: columns gate by gate (reset, update, candidate), in each GRU_C's, then GRU_P's.

    below `[H, 6H]` maps the layer below, message `[H, 6H]` the message; relation `[2H, H]` the sums.
    """

    below: jax.Array
    below_bias: jax.Array
    relation: jax.Array
    message: jax.Array
    message_bias: jax.Array


def _join(weights: Weights) -> _Joined:
    node, context = weights.node, weights.context
    return _Joined(
        below=_gate_by_gate(node.input_kernel, context.state_kernel),
        below_bias=_gate_by_gate(node.input_bias, context.state_bias),
        relation=jnp.concatenate([weights.same, weights.other]),
        message=_gate_by_gate(node.state_kernel, context.input_kernel),
        message_bias=_gate_by_gate(node.state_bias, context.input_bias),
    )


def _separate(joined: _Joined) -> tuple[jax.Array, jax.Array, GRUWeights, GRUWeights]:
    """Undoes `_join`: the relations to the same and other speakers, GRU_C and GRU_P."""
    node_input, context_state = _gru_by_gru(joined.below)
    node_input_bias, context_state_bias = _gru_by_gru(joined.below_bias)
    node_state, context_input = _gru_by_gru(joined.message)
    node_state_bias, context_input_bias = _gru_by_gru(joined.message_bias)
    return (
        *jnp.split(joined.relation, 2),
        GRUWeights(node_input, node_input_bias, node_state, node_state_bias),
        GRUWeights(context_input, context_input_bias, context_state, context_state_bias),
    )


def _maps(weights: Weights, *, joined: bool) -> tuple[Callable, Callable, Callable]:
    """Returns the maps from the layer below to both GRUs, from the sums to the message, and from that to both GRUs.

    Joined matrices make one product of two. To copy them pays in training; to predict a conversation hardly takes
    longer than to read the weights once, and there it is the products' short results that are joined.
    """
    if joined:
        matrices = _join(weights)
        return (
            lambda x: x @ matrices.below + matrices.below_bias[None, None],
            lambda sums: sums @ matrices.relation,
            lambda message: message @ matrices.message + matrices.message_bias[None],
        )
    node, context = weights.node, weights.context

    def from_below(x):
        as_input = x @ node.input_kernel + node.input_bias[None, None]
        return _gate_by_gate(as_input, x @ context.state_kernel + context.state_bias[None, None])

    def to_message(sums):
        same, other = jnp.split(sums, 2, axis=-1)
        return same @ weights.same + other @ weights.other

    def to_grus(message):
        as_state = message @ node.state_kernel + node.state_bias[None]
        return _gate_by_gate(as_state, message @ context.input_kernel + context.input_bias[None])

    return from_below, to_message, to_grus


def _gate_by_gate(node: jax.Array, context: jax.Array) -> jax.Array:
    """Puts the columns of two GRUs, reset, update, candidate in each, side by side gate by gate: `[..., 6H]`."""
    pairs = zip(jnp.split(node, 3, axis=-1), jnp.split(context, 3, axis=-1), strict=True)
    return jnp.concatenate([columns for pair in pairs for columns in pair], axis=-1)


def _gru_by_gru(columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Undoes `_gate_by_gate`."""
    parts = jnp.split(columns, 6, axis=-1)
    return jnp.concatenate(parts[::2], axis=-1), jnp.concatenate(parts[1::2], axis=-1)


def _gates(from_below: jax.Array, from_message: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns reset, update, candidate and the state's part of the candidate of both GRUs, `[B, 2H]` each.

    GRU_C(h, m) and GRU_P(m, h) of DAG-ERC differ in what is input and what is state, which only the candidate tells
    apart (see `jmer.layers.recurrent.gru_update`).
    """
    below_reset, below_update, below_candidate = jnp.split(from_below, 3, axis=-1)
    message_reset, message_update, message_candidate = jnp.split(from_message, 3, axis=-1)
    reset = jax.nn.sigmoid(below_reset + message_reset)
    update = jax.nn.sigmoid(below_update + message_update)
    candidate_input = _halves(below_candidate, message_candidate)
    candidate_state = _halves(message_candidate, below_candidate)
    return reset, update, jnp.tanh(candidate_input + reset * candidate_state), candidate_state


def _gates_backward(made: _History, below: jax.Array, node_bar: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the gradients of what `_gates` takes, `[B, 6H]` each, and of message and state below, `[B, H]` each."""
    width = node_bar.shape[-1]
    both_bar = jnp.concatenate([node_bar, node_bar], axis=-1)
    states = jnp.concatenate([made.message, below], axis=-1)
    candidate_bar = both_bar * (1 - made.update) * (1 - made.candidate**2)
    update_bar = both_bar * (states - made.candidate) * made.update * (1 - made.update)
    reset_bar = candidate_bar * made.candidate_state * made.reset * (1 - made.reset)
    candidate_state_bar = candidate_bar * made.reset
    states_bar = both_bar * made.update
    return (
        jnp.concatenate([reset_bar, update_bar, _halves(candidate_bar, candidate_state_bar)], axis=-1),
        jnp.concatenate([reset_bar, update_bar, _halves(candidate_state_bar, candidate_bar)], axis=-1),
        states_bar[:, :width],
        states_bar[:, width:],
    )


def _halves(node: jax.Array, context: jax.Array) -> jax.Array:
    """Returns GRU_C's half of the first and GRU_P's half of the second, `[B, 2H]`."""
    width = node.shape[-1] // 2
    return jnp.concatenate([node[:, :width], context[:, width:]], axis=-1)


def _sum_over_predecessors(attention: jax.Array, nodes: jax.Array, first: jax.Array, t: jax.Array) -> jax.Array:
    """Returns the attention-weighted sums of the nodes before step `t`, `[B, 2, H]`."""
    rows, _, window = attention.shape
    piece = _piece(window)

    def add(k, total):
        part, before = _slice(attention, k * piece, piece, 2), _slice(nodes, t + k * piece, piece, 1)
        return total + jnp.einsum("bsj,bjh->bsh", part, before)

    return _over_pieces(first, window // piece, add, jnp.zeros((rows, 2, nodes.shape[-1]), nodes.dtype))


def _back_to_predecessors(
    attention: jax.Array, sums_bar: jax.Array, nodes: jax.Array, nodes_bar: jax.Array, first: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns `nodes_bar` with what step `t` adds to it, and the gradient of the attention, `[B, 2, W]`."""
    window = attention.shape[-1]
    piece = _piece(window)

    def back(k, carry):
        nodes_bar, attention_bar = carry
        part, before = _slice(attention, k * piece, piece, 2), _slice(nodes, t + k * piece, piece, 1)
        # Twice one term for each element: a loop over memory, which is faster than products of two columns.
        added = sum(part[:, s, :, None] * sums_bar[:, s, None] for s in (0, 1))
        part_bar = jnp.einsum("bsh,bjh->bsj", sums_bar, before)
        attention_bar = jax.lax.dynamic_update_slice_in_dim(attention_bar, part_bar, k * piece, 2)
        return _add(nodes_bar, added, t + k * piece, 1), attention_bar

    return _over_pieces(first, window // piece, back, (nodes_bar, jnp.zeros_like(attention)))


def _over_pieces(first: jax.Array, count: int, body: Callable, start: Any) -> Any:
    return body(0, start) if count == 1 else jax.lax.fori_loop(first, count, body, start)


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the sum over steps and rows of products, `[D, E]`."""
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])


def _in_steps(nodes: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.moveaxis(nodes[:, -len(x) :], 1, 0)


def _at(buffer: jax.Array, t: jax.Array, axis: int = 0) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(buffer, t, axis, keepdims=False)


def _put(buffer: jax.Array, value: jax.Array, t: jax.Array, axis: int) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(buffer, value, t, axis)


def _slice(buffer: jax.Array, start: jax.Array, size: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(buffer, start, size, axis)


def _add(buffer: jax.Array, value: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    before = _slice(buffer, start, value.shape[axis], axis)
    return jax.lax.dynamic_update_slice_in_dim(buffer, before + value, start, axis)
