"""The recurrence of all layers of DAG-ERC as a wavefront, for accelerators, with a derivative written by hand.

An accelerator's time depends on the number of operations more than on their size. Layer l (from 0) reads utterance t
at step t + l, so that there is one loop of T + L - 1 steps, whose operations are those of all layers. Products are
merged: what a layer reads is multiplied once by all that it is needed with. Gates have an axis of their own, since a
TPU has to move values that do not begin at a multiple of a register's width. What the derivative needs of the steps is
computed from the states again, for all steps at once.
"""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers import dag_gates, dag_kernel
from jmer.layers.dag_recurrence import Weights
from jmer.layers.slices import put, take

_KEY, _QUERY = 6, 7
"""Blocks of `_Kernels.own` after those of the gates."""


def by_step(adjacency: jax.Array, same_speaker: jax.Array, layers: int) -> jax.Array:
    """Returns a batch's graph by step and layer.

    Args:
      adjacency, same_speaker: bool `[B, T, T]` each, see `jmer.layers.dag.predecessor_graph`.
      layers: their number, `L`.

    Returns:
      Bool `[S, L, B, 2, S]` for `S` steps, True where the utterance of that step and layer is linked to that of the
      last axis, first those of the same speaker, then those of others.
    """
    relations = jnp.stack([adjacency & same_speaker, adjacency & ~same_speaker], axis=2)
    late = [jnp.pad(relations, ((0, 0), (i, layers - 1 - i), (0, 0), (i, layers - 1 - i))) for i in range(layers)]
    return jnp.moveaxis(jnp.stack(late), 2, 0)


def empty(x: jax.Array, layers: int) -> jax.Array:
    """Returns what `forward` leaves for the way back as zeros."""
    return jnp.zeros((len(x) + layers - 1, layers, *x.shape[1:]), x.dtype)


def forward(
    negative_slope: float, weights: Sequence[Weights], x: jax.Array, relations: jax.Array, *, kernel: bool = False
) -> tuple[list[jax.Array], jax.Array]:
    """Runs layers over the utterances in order.

    Args:
      negative_slope: of scores below zero.
      weights: of each layer.
      x: `[T, B, H]`, what the lowest layer reads.
      relations: the graph, see `by_step`.
      kernel: whether the steps are those of `jmer.layers.dag_kernel`.

    Returns:
      Each layer's states, `[T, B, H]`; and the states by step, `[S, L, B, H]`, which `backward` needs.
    """
    run = dag_kernel.run if kernel else _run
    states = run(negative_slope, _stacked(weights), _for_steps(x, len(relations)), relations)
    return [states[i : i + len(x), i] for i in range(len(weights))], states


def _stacked(weights: Sequence[Weights]) -> Weights:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)


def _for_steps(x: jax.Array, steps: int) -> jax.Array:
    return jnp.pad(x, ((0, steps - len(x)), (0, 0), (0, 0)))


class _Kernels(NamedTuple):
    """What multiplies all layers' inputs and messages.

    Attributes:
      own: `[L + 1, H, 8, H]`, of what a layer has below it: its gates, in one column the score of that as a key of the
        layer below, in another that as its own query. What is below one layer more are the states of the highest.
      relations: `[L, 2, H, H]`, of the sums over predecessors of the same and of other speakers.
      message: `[L, H, 6, H]`, of a message: the gates.
      below_bias, message_bias: `[L, 1, H]`, of each block.
      score_bias: `[L, 1]`.
    """

    own: jax.Array
    relations: jax.Array
    message: jax.Array
    below_bias: list[jax.Array]
    message_bias: list[jax.Array]
    score_bias: jax.Array


def _kernels(weights: Weights) -> _Kernels:
    def column(of_layers, lower):
        first = [(lower, 1 - lower), (0, 0)]
        return jnp.pad(of_layers[..., None, None], (*first, (0, 0), (0, of_layers.shape[-1] - 1)))

    gates = jnp.pad(dag_gates.below_kernels(weights), ((0, 1), *((0, 0),) * 3))
    kernels = _Kernels(
        jnp.concatenate([gates, column(weights.key, 1), column(weights.query, 0)], axis=-2),
        dag_gates.relation_kernels(weights),
        dag_gates.message_kernels(weights),
        *dag_gates.biases(weights),
        weights.score_bias[:, None],
    )
    # Otherwise they are put side by side in every step.
    return jax.lax.optimization_barrier(kernels)


def _product(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """Returns the blocks of products, `[G, L, B, H]`, given `x` `[L, B, H]` and `[L, H, G, H]`."""
    # What is added to it would be computed before it, as one more operation, for the product to begin with.
    return jnp.moveaxis(jax.lax.optimization_barrier(jnp.einsum("lbh,lhgk->lbgk", x, kernels)), 2, 0)


def _gates(of_below: jax.Array, of_message: jax.Array, kernels: _Kernels) -> tuple[dag_gates.Gates, dag_gates.Gates]:
    """Returns the gates of GRU_C and GRU_P, given both maps' blocks without their biases, `[6, L, B, H]` each."""
    return dag_gates.gates(
        [x + bias for x, bias in zip(of_below, kernels.below_bias, strict=True)],
        [x + bias for x, bias in zip(of_message, kernels.message_bias, strict=True)],
    )


def _scores(query: jax.Array, keys: jax.Array, negative_slope: float) -> jax.Array:
    """Scores `[..., S]` of predecessors by queries `[...]` and keys `[..., S]`; linear ones without the queries."""
    # The softmax cancels what all predecessors have in common.
    return keys if negative_slope == 1 else nn.leaky_relu(query[..., None] + keys, negative_slope)


def _powers(scores: jax.Array, relations: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the powers of a softmax of `scores` `[..., S]` by relation, `[..., 2, S]`, and their sums, `[...]`.

    Where nothing is linked, the powers are 0 and their sum is 1.
    """
    scores = jnp.where(relations, scores[..., None, :], jnp.finfo(scores.dtype).min)
    powers = jnp.where(relations, jnp.exp(scores - scores.max((-2, -1), keepdims=True)), 0)
    total = powers.sum((-2, -1))
    return powers, jnp.where(total > 0, total, 1)


def _run(negative_slope: float, weights: Weights, x: jax.Array, relations: jax.Array) -> jax.Array:
    (steps, layers), (rows, width) = relations.shape[:2], x.shape[1:]
    kernels = _kernels(weights)

    def step(t, carry):
        state, keys, states = carry
        below = jnp.concatenate([take(x, t)[None], state])
        maps = _product(below, kernels.own)
        # Those of the step before; before the first step there is none, and zeros are put where its own will be.
        keys = put(keys, maps[_KEY, 1:, :, 0], jnp.maximum(t - 1, 0), axis=2)
        scores = _scores(maps[_QUERY, :-1, :, 0] + kernels.score_bias, keys, negative_slope)
        powers, total = _powers(scores, take(relations, t))
        # Otherwise the powers are computed again for every part of the product.
        powers = jax.lax.optimization_barrier(powers)
        sums = jnp.einsum("lbrs,slbh->lbrh", powers, states) / total[..., None, None]
        message = jax.lax.optimization_barrier(jnp.einsum("lbrh,lrhk->lbk", sums, kernels.relations))
        of_message = _product(message, kernels.message)
        gates = _gates(maps[:_KEY, :-1], of_message, kernels)
        state = dag_gates.next_state(*gates, below[:-1], message)
        return state, keys, put(states, state, t)

    def empty(*shape):
        return jnp.zeros(shape, x.dtype)

    start = empty(layers, rows, width), empty(layers, rows, steps), empty(steps, layers, rows, width)
    return jax.lax.fori_loop(0, steps, step, start)[-1]


class _Made(NamedTuple):
    """What the steps made.

    Attributes:
      below, message: `[S, L, B, H]`, the states below and the messages.
      sums: `[S, L, B, 2, H]`, over predecessors of the same and of other speakers.
      falling: bool `[S, L, B, S]`, True where scores are below zero.
      attention: `[S, L, B, 2, S]`, by relation.
      factors: `[S, 10, L, B, H]`, by which a new state's gradient is multiplied, see `jmer.layers.dag_gates.factors`.
    """

    below: jax.Array
    message: jax.Array
    sums: jax.Array
    falling: jax.Array
    attention: jax.Array
    factors: jax.Array


def _made(negative_slope: float, weights: Weights, x: jax.Array, relations: jax.Array, states: jax.Array) -> _Made:
    """Computes again what the steps made, for all of them at once."""
    kernels = _kernels(weights)
    before = jnp.pad(states[:-1, :-1], ((1, 0), *((0, 0),) * 3))
    below = jnp.concatenate([x[:, None], before], axis=1)
    query = jnp.einsum("slbh,lh->slb", below, weights.query) + kernels.score_bias[None]
    scores = query[..., None] + jnp.einsum("slbh,lh->lbs", states, weights.key)[None]
    powers, total = _powers(nn.leaky_relu(scores, negative_slope), relations)
    attention = powers / total[..., None, None]
    sums = jnp.einsum("tlbrs,slbh->tlbrh", attention, states)
    message = jnp.einsum("tlbrh,lrhk->tlbk", sums, kernels.relations)
    of_below = jnp.einsum("tlbh,lhgk->tglbk", below, dag_gates.below_kernels(weights))
    of_message = jnp.einsum("tlbh,lhgk->tglbk", message, kernels.message)
    gates = jax.vmap(_gates, (0, 0, None))(of_below, of_message, kernels)
    # Otherwise they are laid out for the weights' gradients and copied for the steps.
    factors = jax.lax.optimization_barrier(jnp.stack(dag_gates.factors(*gates, below, message), axis=1))
    return _Made(below, message, sums, scores < 0, attention, factors)


class _Bars(NamedTuple):
    """Gradients.

    Attributes:
      states, messages: `[S, L, B, H]`.
      keys: `[L, B, S]`.
      queries: `[S, L, B]`.
    """

    states: jax.Array
    messages: jax.Array
    keys: jax.Array
    queries: jax.Array


def _run_back(negative_slope: float, weights: Weights, made: _Made, states: jax.Array, states_bar: jax.Array) -> _Bars:
    steps, layers, rows = states_bar.shape[:3]
    kernels = dag_gates.below_kernels(weights), dag_gates.message_kernels(weights), dag_gates.relation_kernels(weights)
    of_below, of_message, relations = jax.lax.optimization_barrier(kernels)
    maps = (
        (dag_gates.BELOW, dag_gates.OF_BELOW, of_below),
        (dag_gates.MESSAGE, dag_gates.OF_MESSAGE, of_message),
    )
    # By predecessor and successor, where attention is by successor and predecessor.
    to_successors = jnp.swapaxes(made.attention, 0, -1)

    def step(i, carry):
        bars, below_bar = carry
        t = steps - 1 - i
        messages_bar = jnp.einsum("lbrs,slbh->lbrh", take(to_successors, t), bars.messages)
        from_successors = jnp.einsum("lbrk,lrhk->lbh", messages_bar, relations)
        from_above = jax.lax.pad(below_bar, jnp.zeros((), below_bar.dtype), ((-1, 1, 0), (0, 0, 0), (0, 0, 0)))
        state_bar = take(bars.states, t) + from_above + jax.lax.optimization_barrier(from_successors)
        state_bar += take(bars.keys, t, axis=2)[..., None] * weights.key[:, None]
        factors = take(made.factors, t)
        below_bar, message_bar = (
            factors[direct] * state_bar + jnp.einsum("glbk,lhgk->lbh", factors[of_map] * state_bar[None], kernel)
            for direct, of_map, kernel in maps
        )
        sums_bar = jax.lax.optimization_barrier(jnp.einsum("lbk,lrhk->lbrh", message_bar, relations))
        attention, attention_bar = take(made.attention, t), jnp.einsum("lbrh,slbh->lbrs", sums_bar, states)
        weighted = (attention * attention_bar).sum(2)
        score_bar = weighted - attention.sum(2) * weighted.sum(-1, keepdims=True)
        queries_bar = bars.queries
        # Linear scores do not depend on their query, which the softmax cancels.
        if negative_slope != 1:
            score_bar = jnp.where(take(made.falling, t), negative_slope * score_bar, score_bar)
            query_bar = score_bar.sum(-1)
            below_bar += query_bar[..., None] * weights.query[:, None]
            queries_bar = put(queries_bar, query_bar, t)
        bars = _Bars(
            states=put(bars.states, state_bar, t),
            messages=put(bars.messages, message_bar, t),
            keys=bars.keys + score_bar,
            queries=queries_bar,
        )
        return bars, below_bar

    def empty(*shape):
        return jnp.zeros(shape, states_bar.dtype)

    bars = _Bars(
        states=states_bar,
        messages=jnp.zeros_like(states_bar),
        keys=empty(layers, rows, steps),
        queries=empty(steps, layers, rows),
    )
    return jax.lax.fori_loop(0, steps, step, (bars, jnp.zeros_like(states_bar[0])))[0]


def _run_back_in_kernel(
    negative_slope: float, weights: Weights, made: _Made, states: jax.Array, states_bar: jax.Array
) -> _Bars:
    of_states, messages, scores = dag_kernel.run_back(
        negative_slope, weights, made.attention, made.falling, states, made.factors, states_bar
    )
    return _Bars(of_states, messages, keys=scores.sum(0), queries=scores.sum(-1))


def backward(
    negative_slope: float,
    weights: Sequence[Weights],
    x: jax.Array,
    relations: jax.Array,
    states: jax.Array,
    states_bar: Sequence[jax.Array],
    *,
    kernel: bool = False,
) -> tuple[list[Weights], jax.Array]:
    """Returns the gradients of the weights and of `x`, given those of the states; `states` is what `forward` left."""
    stacked, layers = _stacked(weights), len(weights)
    late = [jnp.pad(bar, ((i, layers - 1 - i), (0, 0), (0, 0))) for i, bar in enumerate(states_bar)]
    made = _made(negative_slope, stacked, _for_steps(x, len(states)), relations, states)
    run_back = _run_back_in_kernel if kernel else _run_back
    bars = run_back(negative_slope, stacked, made, states, jnp.stack(late, axis=1))
    weights_bar, x_bar = _of_inputs(stacked, made, states, bars)
    return [jax.tree.map(operator.itemgetter(i), weights_bar) for i in range(layers)], x_bar[: len(x)]


def _of_inputs(weights: Weights, made: _Made, states: jax.Array, bars: _Bars) -> tuple[Weights, jax.Array]:
    """Returns the gradients of all weights and of what the lowest layer reads at each step."""
    relations_bar = jnp.einsum("tlbrh,tlbk->rlhk", made.sums, bars.messages)
    maps_bar = made.factors[:, : dag_gates.MAPS] * bars.states[:, None]
    biases_bar = jnp.moveaxis(maps_bar.sum((0, 3)), 0, 1)
    of_below, of_message = (jnp.einsum("slbh,sglbk->lhgk", inputs, maps_bar) for inputs in (made.below, made.message))
    node_bar, context_bar = dag_gates.recurrent_weights(
        of_below[:, :, dag_gates.OF_BELOW],
        biases_bar[:, dag_gates.OF_BELOW],
        of_message[:, :, dag_gates.OF_MESSAGE],
        biases_bar[:, dag_gates.OF_MESSAGE],
    )
    weights_bar = Weights(
        query=jnp.einsum("slb,slbh->lh", bars.queries, made.below),
        key=jnp.einsum("lbs,slbh->lh", bars.keys, states),
        score_bias=bars.queries.sum((0, 2)),
        same=relations_bar[0],
        other=relations_bar[1],
        node=node_bar,
        context=context_bar,
    )
    weights_bar = jax.lax.optimization_barrier(weights_bar)
    x_bar = jnp.einsum("sgbk,hgk->sbh", maps_bar[:, dag_gates.OF_BELOW, 0], dag_gates.below_kernels(weights)[0])
    x_bar += made.factors[:, dag_gates.BELOW, 0] * bars.states[:, 0]
    return weights_bar, x_bar + bars.queries[:, 0, :, None] * weights.query[0][None, None]
