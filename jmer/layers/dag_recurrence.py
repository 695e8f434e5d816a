"""The recurrence inside a layer of DAG-ERC as a CPU runs it, with a derivative written by hand.

Products with the layer below are computed for all utterances before the loop, the weights' gradients after it, each as
one product; the loop has only what depends on the predecessors. A node's predecessors are read in pieces, as many as
the farthest one needs. On other platforms see `jmer.layers.dag_wavefront`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.gru import Gates, GatesBar, gru_backward, gru_gates, gru_next
from jmer.layers.recurrent import RecurrentWeights
from jmer.layers.slices import highest_of_all, put, take

# Predecessors at window 1 are rarely farther back than this, so that one piece is usually enough.
PIECE = 16


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
    node: RecurrentWeights
    context: RecurrentWeights


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

    def by_distance(edges):
        late = jnp.pad(edges, ((0, 0), (0, 0), (window, 0))).reshape(len(edges), -1)
        # Cut into rows longer by one, each row begins one entry later than the one before it.
        return jnp.pad(late, ((0, 0), (0, length))).reshape(len(edges), length, -1)[..., :window]

    adjacency, same_speaker = (jnp.moveaxis(by_distance(edges), 1, 0) for edges in (adjacency, same_speaker))
    linked = adjacency.any(1)
    reach = jnp.where(linked.any(-1), window - linked.argmax(-1), 0)
    return Links(adjacency, same_speaker, (window - highest_of_all(reach)) // _piece(length))


def _piece(length: int) -> int:
    return min(length, PIECE)


class _History(NamedTuple):
    """What the steps leave for the way back.

    attention `[T, B, 2, W]`; sums `[T, B, 2H]`; message `[T, B, H]`; both GRUs' gates.
    """

    attention: jax.Array
    sums: jax.Array
    message: jax.Array
    node: Gates
    context: Gates


class Saved(NamedTuple):
    """What a layer's steps leave for the way back, beside its weights and what it reads.

    Attributes:
      nodes: `[P + T, B, H]`, the states, `P` = a piece late.
      keys: `[W + T, B]`, `W` late.
      query: `[T, B]`.
      history: of each step, a `_History`; None where it is not kept.
    """

    nodes: jax.Array
    keys: jax.Array
    query: jax.Array
    history: Any


def empty(x: jax.Array, graph: Links) -> Saved:
    """Returns what a layer leaves for the way back as zeros."""
    (steps, rows, width), window = x.shape, graph.adjacency.shape[-1]

    def zeros(*shape):
        return jnp.zeros(shape, x.dtype)

    gates = Gates(zeros(steps, rows, 2 * width), zeros(steps, rows, width), zeros(steps, rows, width))
    history = _History(
        zeros(steps, rows, 2, window), zeros(steps, rows, 2 * width), zeros(steps, rows, width), gates, gates
    )
    return Saved(zeros(_piece(window) + steps, rows, width), zeros(window + steps, rows), zeros(steps, rows), history)


def states(negative_slope: float, weights: Sequence[Weights], x: jax.Array, graph: Links) -> list[jax.Array]:
    """Runs layers over the utterances in order, each after the one below it.

    Args:
      negative_slope: of scores below zero.
      weights: of each layer.
      x: `[T, B, H]`, what the lowest layer reads.
      graph: the links.

    Returns:
      Each layer's states, `[T, B, H]`.
    """
    made = [x]
    for of_layer in weights:
        made.append(_forward(negative_slope, of_layer, made[-1], graph, keep=False).nodes[-len(x) :])
    return made[1:]


def forward(
    negative_slope: float, weights: Sequence[Weights], x: jax.Array, graph: Links
) -> tuple[list[jax.Array], list[Saved]]:
    """Computes `states`, and what `backward` needs of each layer."""
    made = [x]
    saved: list[Saved] = []
    for of_layer in weights:
        saved.append(_forward(negative_slope, of_layer, made[-1], graph, keep=True))
        made.append(saved[-1].nodes[-len(x) :])
    return made[1:], saved


def backward(
    negative_slope: float,
    weights: Sequence[Weights],
    x: jax.Array,
    graph: Links,
    saved: Sequence[Saved],
    states_bar: Sequence[jax.Array],
) -> tuple[list[Weights], jax.Array]:
    """Returns the gradients of the weights and of `x`, given those of the states."""
    weights_bar: list[Weights] = []
    from_above = jnp.zeros_like(x)
    below = [x, *(of_layer.nodes[-len(x) :] for of_layer in saved[:-1])]
    for of_layer, read, left, bar in reversed(list(zip(weights, below, saved, states_bar, strict=True))):
        of_weights, from_above = _backward(negative_slope, of_layer, read, graph, left, bar + from_above)
        weights_bar.insert(0, of_weights)
    return weights_bar, from_above


def _forward(negative_slope: float, weights: Weights, x: jax.Array, graph: Links, *, keep: bool) -> Saved:
    """Runs a layer; without `keep` there is no history."""
    (steps, rows, _), window = x.shape, graph.adjacency.shape[-1]
    piece, node, context = _piece(window), weights.node, weights.context
    node_below, context_below = x @ node.input_kernel, x @ context.state_kernel
    query = x @ weights.query + weights.score_bias

    def step(t, carry):
        nodes, keys, history = carry
        linked, same = take(graph.adjacency, t), take(graph.same_speaker, t)
        score = nn.leaky_relu(take(query, t)[:, None] + take(keys, t, window).T, negative_slope)
        attention = jax.nn.softmax(score, where=linked)
        to_same = jnp.where(same, attention, 0)
        attention = jnp.stack([to_same, attention - to_same], axis=1)
        sums = _sum_over_predecessors(attention, nodes, graph.pieces[t], t)
        message = sums[:, 0] @ weights.same + sums[:, 1] @ weights.other
        below = take(x, t)
        of_node = gru_gates(
            take(node_below, t) + node.input_bias[None], message @ node.state_kernel + node.state_bias[None]
        )
        of_context = gru_gates(
            message @ context.input_kernel + context.input_bias[None], take(context_below, t) + context.state_bias[None]
        )
        new = gru_next(of_node, message) + gru_next(of_context, below)
        nodes, keys = put(nodes, new, t + piece), put(keys, new @ weights.key, t + window)
        if keep:
            made = _History(attention, sums.reshape(rows, -1), message, of_node, of_context)
            history = jax.tree.map(lambda buffer, value: put(buffer, value, t), history, made)
        return nodes, keys, history

    start = empty(x, graph)
    nodes, keys, history = jax.lax.fori_loop(0, steps, step, (start.nodes, start.keys, start.history if keep else None))
    return Saved(nodes, keys, query, history)


def _backward(
    negative_slope: float, weights: Weights, x: jax.Array, graph: Links, saved: Saved, nodes_bar: jax.Array
) -> tuple[Weights, jax.Array]:
    nodes, keys, query, history = saved
    (steps, rows, width), window = x.shape, graph.adjacency.shape[-1]
    piece, node, context = _piece(window), weights.node, weights.context
    # Laid out once for products that would otherwise run along the memory's slow direction at every step.
    message_back = jnp.concatenate([node.state_kernel.T, context.input_kernel.T])
    relation_back = jnp.concatenate([weights.same.T, weights.other.T], axis=1)
    message_back, relation_back = jax.lax.optimization_barrier((message_back, relation_back))

    def step(i, carry):
        nodes_bar, keys_bar, scores_bar, messages_bar = carry
        t = steps - 1 - i
        made, below = jax.tree.map(lambda buffer: take(buffer, t), (history, x))
        node_bar = take(nodes_bar, t + piece) + take(keys_bar, t + window)[:, None] * weights.key[None]
        of_node, message_bar = gru_backward(made.node, made.message, node_bar)
        of_context, _ = gru_backward(made.context, below, node_bar)
        message_bar += jnp.concatenate([of_node.state, of_context.input], axis=-1) @ message_back
        sums_bar = (message_bar @ relation_back).reshape(rows, 2, width)
        nodes_bar, attention_bar = _back_to_predecessors(made.attention, sums_bar, nodes, nodes_bar, graph.pieces[t], t)
        attention_bar = jnp.where(take(graph.same_speaker, t), attention_bar[:, 0], attention_bar[:, 1])
        attention = made.attention.sum(1)
        score_bar = attention * (attention_bar - (attention * attention_bar).sum(-1, keepdims=True))
        score = take(query, t)[:, None] + take(keys, t, window).T
        score_bar = jnp.where(score < 0, negative_slope * score_bar, score_bar)
        keys_bar = put(keys_bar, take(keys_bar, t, window) + score_bar.T, t, window)
        return nodes_bar, keys_bar, put(scores_bar, score_bar.sum(-1), t), put(messages_bar, message_bar, t)

    late = jnp.pad(nodes_bar, ((piece, 0), (0, 0), (0, 0)))
    start = late, jnp.zeros_like(keys), jnp.zeros((steps, rows), x.dtype), jnp.zeros((steps, rows, width), x.dtype)
    nodes_bar, keys_bar, scores_bar, messages_bar = jax.lax.fori_loop(0, steps, step, start)
    nodes_bar = nodes_bar[piece:] + keys_bar[window:, :, None] * weights.key[None, None]
    of_node, _ = gru_backward(history.node, history.message, nodes_bar)
    of_context, below_bar = gru_backward(history.context, x, nodes_bar)
    same_bar, other_bar = jnp.split(_outer(history.sums, messages_bar), 2)
    weights_bar = Weights(
        query=jnp.einsum("tb,tbh->h", scores_bar, x),
        key=jnp.einsum("tb,tbh->h", keys_bar[window:], nodes[piece:]),
        score_bias=scores_bar.sum(),
        same=same_bar,
        other=other_bar,
        node=_gru_weights_backward(of_node, x, history.message),
        context=_gru_weights_backward(of_context, history.message, x),
    )
    x_bar = of_node.input @ node.input_kernel.T + of_context.state @ context.state_kernel.T
    return weights_bar, x_bar + below_bar + scores_bar[..., None] * weights.query[None, None]


def scan_states(negative_slope: float, weights: Sequence[Weights], x: jax.Array, graph: Links) -> list[jax.Array]:
    """Computes `states` by scans, whose derivatives of any mode and order are JAX's own."""
    made = [x]
    for of_layer in weights:
        made.append(_scan(negative_slope, of_layer, made[-1], graph))
    return made[1:]


def _scan(negative_slope: float, weights: Weights, x: jax.Array, graph: Links) -> jax.Array:
    node, context, window = weights.node, weights.context, graph.adjacency.shape[-1]

    def step(carry, inputs):
        nodes, keys = carry
        below, linked, same = inputs
        score = nn.leaky_relu((below @ weights.query + weights.score_bias)[:, None] + keys.T, negative_slope)
        attention = jax.nn.softmax(score, where=linked)
        to_same = jnp.where(same, attention, 0)
        message = jnp.einsum("bw,wbh->bh", to_same, nodes) @ weights.same
        message += jnp.einsum("bw,wbh->bh", attention - to_same, nodes) @ weights.other
        of_node = gru_gates(
            below @ node.input_kernel + node.input_bias[None], message @ node.state_kernel + node.state_bias[None]
        )
        of_context = gru_gates(
            message @ context.input_kernel + context.input_bias[None],
            below @ context.state_kernel + context.state_bias[None],
        )
        new = gru_next(of_node, message) + gru_next(of_context, below)
        nodes = jnp.concatenate([nodes[1:], new[None]])
        return (nodes, jnp.concatenate([keys[1:], (new @ weights.key)[None]])), new

    rows, width = x.shape[1:]
    start = jnp.zeros((window, rows, width), x.dtype), jnp.zeros((window, rows), x.dtype)
    return jax.lax.scan(step, start, (x, graph.adjacency, graph.same_speaker))[1]


def _gru_weights_backward(bar: GatesBar, inputs: jax.Array, states: jax.Array) -> RecurrentWeights:
    return RecurrentWeights(
        _outer(inputs, bar.input), bar.input.sum((0, 1)), _outer(states, bar.state), bar.state.sum((0, 1))
    )


def _sum_over_predecessors(attention: jax.Array, nodes: jax.Array, first: jax.Array, t: jax.Array) -> jax.Array:
    """Returns the attention-weighted sums of the nodes before step `t`, `[B, 2, H]`."""
    rows, _, window = attention.shape
    piece = _piece(window)

    def add(k, total):
        part, before = take(attention, k * piece, piece, axis=2), take(nodes, t - window + (k + 1) * piece, piece)
        return total + jnp.einsum("bsj,jbh->bsh", part, before)

    return _over_pieces(first, window // piece, add, jnp.zeros((rows, 2, nodes.shape[-1]), nodes.dtype))


def _back_to_predecessors(
    attention: jax.Array, sums_bar: jax.Array, nodes: jax.Array, nodes_bar: jax.Array, first: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns `nodes_bar` with what step `t` adds to it, and the gradient of the attention, `[B, 2, W]`."""
    window = attention.shape[-1]
    piece = _piece(window)

    def back(k, carry):
        nodes_bar, attention_bar = carry
        start = t - window + (k + 1) * piece
        part, before = take(attention, k * piece, piece, axis=2), take(nodes, start, piece)
        # Twice one term for each element: a loop over memory, which is faster than products of two columns.
        added = sum(part[:, s].T[..., None] * sums_bar[None, :, s] for s in (0, 1))
        part_bar = jnp.einsum("bsh,jbh->bsj", sums_bar, before)
        attention_bar = put(attention_bar, part_bar, k * piece, piece, axis=2)
        return put(nodes_bar, take(nodes_bar, start, piece) + added, start, piece), attention_bar

    return _over_pieces(first, window // piece, back, (nodes_bar, jnp.zeros_like(attention)))


def _over_pieces(first: jax.Array, count: int, body: Callable, start: Any) -> Any:
    return body(0, start) if count == 1 else jax.lax.fori_loop(first, count, body, start)


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the sum over steps and rows of products, `[D, E]`."""
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])
