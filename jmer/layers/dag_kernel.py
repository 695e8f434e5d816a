"""The loops of `jmer.layers.dag_wavefront` as one Pallas kernel each, for TPUs.

A step is one position of the grid, which the chip walks in order: what a step reads of arrays by step is brought from
memory while the one before it is computed, and weights and what steps leave for one another stay on the chip.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jmer.layers import dag_gates
from jmer.layers.dag_recurrence import Weights

# Of the 128 MiB that the memory of a TPU's core has since v4; by default a kernel may use 16.
VMEM_BYTES = 100 * 2**20

# Whether kernels are emulated, on any platform.
INTERPRET = False


class Blocks(NamedTuple):
    """All layers' weights as square blocks: a width of `H` columns begins at a multiple of a register's width.

    Attributes:
      below, message: `[L, 6, H, H]`, maps of the states below and of messages, see `jmer.layers.dag_gates`.
      relations: `[L, 2, H, H]`, of the same and of other speakers.
    """

    below: jax.Array
    message: jax.Array
    relations: jax.Array


class Vectors(NamedTuple):
    """All layers' vectors: biases `[6, L, 1, H]` each, `query` and `key` `[L, 1, H]`, `score_bias` `[L, 1, 1]`."""

    below_bias: jax.Array
    message_bias: jax.Array
    query: jax.Array
    key: jax.Array
    score_bias: jax.Array


def _blocks(weights: Weights) -> Blocks:
    return Blocks(
        below=jnp.swapaxes(dag_gates.below_kernels(weights), 1, 2),
        message=jnp.swapaxes(dag_gates.message_kernels(weights), 1, 2),
        relations=dag_gates.relation_kernels(weights),
    )


def _vectors(weights: Weights) -> Vectors:
    below_bias, message_bias = map(jnp.stack, dag_gates.biases(weights))
    return Vectors(
        below_bias,
        message_bias,
        query=weights.query[:, None],
        key=weights.key[:, None],
        score_bias=weights.score_bias[:, None, None],
    )


def run(negative_slope: float, weights: Weights, x: jax.Array, relations: jax.Array) -> jax.Array:
    """Runs all layers' steps.

    Args:
      negative_slope: of scores below zero.
      weights: of all layers, `[L, ...]`.
      x: `[S, B, H]`, what the lowest layer reads at each step.
      relations: bool `[S, L, B, 2, S]`, see `jmer.layers.dag_wavefront.by_step`.

    Returns:
      The states, `[S, L, B, H]`.
    """
    (steps, rows, width), layers = x.shape, relations.shape[1]
    precise = _precise(x.dtype)
    return _call(
        functools.partial(_step, negative_slope),
        steps,
        by_step=(x, _kinds(relations)),
        whole=(*_blocks(weights), *_vectors(weights)),
        out=jax.ShapeDtypeStruct((steps, layers, rows, width), x.dtype),
        scratch=(
            pltpu.VMEM((layers, rows, width), precise),
            pltpu.VMEM((layers, rows, steps), precise),
            pltpu.VMEM((layers, steps, rows, width), precise),
        ),
    )


def _kinds(relations: jax.Array) -> jax.Array:
    """Returns 1 where an utterance is linked to one of the same speaker, 2 to one of another, otherwise 0."""
    return relations[..., 0, :] + 2 * relations[..., 1, :].astype(jnp.int32)


def _precise(dtype: Any) -> Any:
    """Returns the type of sums, and of what is computed without products."""
    return jnp.promote_types(dtype, jnp.float32)


def _call(
    body: Any,
    steps: int,
    *,
    by_step: Any,
    whole: Any,
    out: Any,
    scratch: Any,
    reverse: bool = False,
) -> Any:
    """Calls a kernel at each step: arrays by step at theirs, `whole` arrays as they are; outputs are by step."""

    def at_step(array):
        shape = array.shape[1:]
        return pl.BlockSpec(
            (1, *shape), lambda i: (steps - 1 - i if reverse else i, *(0,) * len(shape)), memory_space=pltpu.VMEM
        )

    def always(array):
        return pl.BlockSpec(
            array.shape,
            lambda _: (0,) * array.ndim,
            memory_space=pltpu.VMEM,
            pipeline_mode=None if INTERPRET else pl.Buffered(1),
        )

    return pl.pallas_call(
        body,
        grid=(steps,),
        in_specs=[*map(at_step, by_step), *map(always, whole)],
        out_specs=jax.tree.map(at_step, out),
        out_shape=out,
        scratch_shapes=scratch,
        interpret=INTERPRET,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",), vmem_limit_bytes=VMEM_BYTES),
    )(*by_step, *whole)


def _dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.dot(x.astype(kernel.dtype), kernel, preferred_element_type=_precise(kernel.dtype))


def _weighted(weights: jax.Array, states: jax.Array) -> jax.Array:
    """Returns sums of `states` `[S, B, H]` by `weights` `[B, S]`, `[B, H]`."""
    return (weights.T[:, :, None] * states).sum(0)


def _step(
    negative_slope,
    x_ref,
    kinds_ref,
    below_kernel,
    message_kernel,
    relation_kernel,
    below_bias,
    message_bias,
    query,
    key,
    score_bias,
    out_ref,
    states,
    keys,
    history,
):
    """Computes a step of all layers; the last `states`, all `keys` and the states' `history` stay for the next one."""
    t, layers = pl.program_id(0), len(key)

    @pl.when(t == 0)
    def _():
        for buffer in (states, keys, history):
            buffer[...] = jnp.zeros(buffer.shape, buffer.dtype)

    # From the highest on, which reads what the one below it made at the step before.
    for layer in reversed(range(layers)):
        below, kinds = x_ref[0].astype(states.dtype) if layer == 0 else states[layer - 1], kinds_ref[0, layer]
        of_query = (below * query[layer]).sum(-1, keepdims=True) + score_bias[layer]
        scores = of_query + keys[layer]
        scores = jnp.where(scores < 0, negative_slope * scores, scores)
        attention = _attention(scores, kinds > 0)
        sums = [_weighted(jnp.where(kinds == kind, attention, 0), history[layer]) for kind in (1, 2)]
        message = _dot(sums[0], relation_kernel[layer, 0]) + _dot(sums[1], relation_kernel[layer, 1])
        gates = dag_gates.gates(
            *(
                [_dot(x, kernel[layer, i]) + bias[i, layer] for i in range(6)]
                for x, kernel, bias in ((below, below_kernel, below_bias), (message, message_kernel, message_bias))
            )
        )
        new = dag_gates.next_state(*gates, below, message)
        states[layer] = new
        out_ref[0, layer] = new.astype(out_ref.dtype)
        history[layer, t] = new
        here = jax.lax.broadcasted_iota(jnp.int32, keys.shape[1:], 1) == t
        keys[layer] = jnp.where(here, (new * key[layer]).sum(-1, keepdims=True), keys[layer])


def _attention(scores: jax.Array, linked: jax.Array) -> jax.Array:
    scores = jnp.where(linked, scores, jnp.finfo(scores.dtype).min)
    powers = jnp.where(linked, jnp.exp(scores - scores.max(-1, keepdims=True)), 0)
    total = powers.sum(-1, keepdims=True)
    return powers / jnp.where(total > 0, total, 1)


def run_back(
    negative_slope: float,
    weights: Weights,
    attention: jax.Array,
    falling: jax.Array,
    states: jax.Array,
    factors: jax.Array,
    states_bar: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs all layers' steps back.

    Args:
      negative_slope: of scores below zero.
      weights: of all layers, `[L, ...]`.
      attention: `[S, L, B, 2, S]`, by relation.
      falling: bool `[S, L, B, S]`, True where scores are below zero.
      states: `[S, L, B, H]`.
      factors: `[S, 10, L, B, H]`, see `jmer.layers.dag_gates.factors`.
      states_bar: `[S, L, B, H]`, gradients of the states from outside.

    Returns:
      Gradients of the states and of the messages, `[S, L, B, H]`, and of the scores, `[S, L, B, S]`.
    """
    steps, layers, rows, width = states_bar.shape
    precise, blocks = _precise(states_bar.dtype), _blocks(weights)
    gates = jnp.swapaxes(jnp.stack([blocks.below, blocks.message]), -1, -2)
    by_row = jnp.swapaxes(attention, 2, 3)
    like = jax.ShapeDtypeStruct(states_bar.shape, states_bar.dtype)
    return _call(
        functools.partial(_step_back, negative_slope),
        steps,
        by_step=(
            states_bar,
            by_row,
            jnp.swapaxes(by_row, 0, -1),
            falling.astype(jnp.int32),
            factors,
        ),
        whole=(
            jnp.moveaxis(states, 0, 1),
            gates,
            jnp.swapaxes(blocks.relations, -1, -2),
            weights.query[:, None],
            weights.key[:, None],
        ),
        out=(like, like, jax.ShapeDtypeStruct(falling.shape, attention.dtype)),
        scratch=(
            pltpu.VMEM((layers, rows, width), precise),
            pltpu.VMEM((layers, rows, steps), precise),
            pltpu.VMEM((layers, steps, rows, width), precise),
        ),
        reverse=True,
    )


def _step_back(
    negative_slope,
    states_bar,
    attention,
    to_successors,
    falling,
    factors,
    states,
    gate_kernels,
    relation_back,
    query,
    key,
    out_states_bar,
    out_messages_bar,
    out_scores_bar,
    below_bar,
    keys_bar,
    messages_bar,
):
    """Computes a step back of all layers; the gradients in the last three buffers stay for the steps before."""
    steps, layers = messages_bar.shape[1], len(key)
    t = steps - 1 - pl.program_id(0)

    @pl.when(t == steps - 1)
    def _():
        for buffer in (below_bar, keys_bar, messages_bar):
            buffer[...] = jnp.zeros(buffer.shape, buffer.dtype)

    # From the lowest on, which reads what the one above it made at the step after.
    for layer in range(layers):
        here = jax.lax.broadcasted_iota(jnp.int32, keys_bar.shape[1:], 1) == t
        state_bar = states_bar[0, layer].astype(below_bar.dtype)
        state_bar += jnp.where(here, keys_bar[layer], 0).sum(-1, keepdims=True) * key[layer]
        if layer < layers - 1:
            state_bar += below_bar[layer + 1]
        for r in (0, 1):
            state_bar += _dot(_weighted(to_successors[0, layer, r], messages_bar[layer]), relation_back[layer, r])
        of_below, message_bar = (
            factors[0, direct, layer] * state_bar
            + sum(
                _dot(factor * state_bar, kernel)
                for factor, kernel in zip(factors[0, of_map, layer], gate_kernels[p, layer], strict=True)
            )
            for p, (direct, of_map) in enumerate(
                ((dag_gates.BELOW, dag_gates.OF_BELOW), (dag_gates.MESSAGE, dag_gates.OF_MESSAGE))
            )
        )
        weighted = sum(
            attention[0, layer, r] * (_dot(message_bar, relation_back[layer, r])[None] * states[layer]).sum(-1).T
            for r in (0, 1)
        )
        scores_bar = weighted - (attention[0, layer, 0] + attention[0, layer, 1]) * weighted.sum(-1, keepdims=True)
        scores_bar = jnp.where(falling[0, layer] != 0, negative_slope * scores_bar, scores_bar)
        keys_bar[layer] += scores_bar
        messages_bar[layer, t] = message_bar
        below_bar[layer] = of_below + scores_bar.sum(-1, keepdims=True) * query[layer]
        for out, value in (
            (out_states_bar, state_bar),
            (out_messages_bar, message_bar),
            (out_scores_bar, scores_bar),
        ):
            out[0, layer] = value.astype(out.dtype)
