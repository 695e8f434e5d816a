"""Both GRUs of a layer of DAG-ERC with an axis for their gates, as accelerators compute them.

The six blocks of each linear map are ordered so that the eight derivatives (`factors`) that go through both maps are
stacked once: the first six belong to the map of the layer below, the last six to that of messages. The reset and update
gates of GRU_C (`node`) and of GRU_P (`context`) are common to both; a candidate's two derivatives differ by the reset
gate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmer.layers.dag_recurrence import Weights
from jmer.layers.recurrent import RecurrentWeights

OF_BELOW = slice(0, 6)
"""Which of the `factors` are those of the blocks of the map of the layer below."""
OF_MESSAGE = slice(2, 8)
"""Which are those of the blocks of the map of messages."""
MAPS = 8
"""How many of the factors are those of blocks."""
BELOW, MESSAGE = 8, 9
"""Which are those of the layer below and of the message themselves."""

# Where the blocks of the reset gate, the update gate and the candidate are: of GRU_C, of GRU_P.
_PLACES_BELOW = (2, 3, 0), (4, 5, 1)
_PLACES_MESSAGE = (0, 1, 4), (2, 3, 5)


def _blocks(node: jax.Array, context: jax.Array, places: Sequence[Sequence[int]]) -> list[jax.Array]:
    """Returns two GRUs' maps `[..., 3H]` as six blocks, `[..., H]` each."""
    parts = dict(zip(places[0], jnp.split(node, 3, axis=-1), strict=True))
    parts |= zip(places[1], jnp.split(context, 3, axis=-1), strict=True)
    return [parts[i] for i in range(6)]


def _of_blocks(blocks: jax.Array, places: Sequence[Sequence[int]]) -> tuple[jax.Array, jax.Array]:
    """Returns two GRUs' maps, `[..., 3H]` each, of their blocks `[..., 6, H]`."""
    node, context = (jnp.concatenate([blocks[..., i, :] for i in of_one], axis=-1) for of_one in places)
    return node, context


def below_kernels(weights: Weights) -> jax.Array:
    """Returns what all layers multiply the layers below by, `[L, H, 6, H]`."""
    return jnp.stack(_blocks(weights.node.input_kernel, weights.context.state_kernel, _PLACES_BELOW), axis=-2)


def message_kernels(weights: Weights) -> jax.Array:
    """Returns what all layers multiply messages by, `[L, H, 6, H]`."""
    return jnp.stack(_blocks(weights.node.state_kernel, weights.context.input_kernel, _PLACES_MESSAGE), axis=-2)


def relation_kernels(weights: Weights) -> jax.Array:
    """Returns what all layers multiply sums over predecessors of the same and of other speakers by, `[L, 2, H, H]`."""
    return jnp.stack([weights.same, weights.other], axis=1)


def biases(weights: Weights) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns the biases of both maps' six blocks, `[L, 1, H]` each."""
    below = _blocks(weights.node.input_bias, weights.context.state_bias, _PLACES_BELOW)
    message = _blocks(weights.node.state_bias, weights.context.input_bias, _PLACES_MESSAGE)
    return [bias[:, None] for bias in below], [bias[:, None] for bias in message]


def recurrent_weights(
    below: jax.Array, below_bias: jax.Array, message: jax.Array, message_bias: jax.Array
) -> tuple[RecurrentWeights, RecurrentWeights]:
    """Returns the weights of GRU_C and GRU_P, given both maps' kernels `[L, H, 6, H]` and biases `[L, 6, H]`."""
    of_below = [_of_blocks(x, _PLACES_BELOW) for x in (below, below_bias)]
    of_message = [_of_blocks(x, _PLACES_MESSAGE) for x in (message, message_bias)]
    (node_input, context_state), (node_state, context_input) = (zip(*x, strict=True) for x in (of_below, of_message))
    return RecurrentWeights(*node_input, *node_state), RecurrentWeights(*context_input, *context_state)


class Gates(NamedTuple):
    """A GRU's gates, `[..., H]` each; `candidate_state` is the state's part of the candidate."""

    reset: jax.Array
    update: jax.Array
    candidate: jax.Array
    candidate_state: jax.Array


def _gates(of_input: Sequence[jax.Array], of_state: Sequence[jax.Array]) -> Gates:
    reset, update = (jax.nn.sigmoid(x + h) for x, h in zip(of_input[:2], of_state[:2], strict=True))
    return Gates(reset, update, jnp.tanh(of_input[2] + reset * of_state[2]), of_state[2])


def gates(below: Sequence[jax.Array], message: Sequence[jax.Array]) -> tuple[Gates, Gates]:
    """Returns the gates of GRU_C and GRU_P, see `jmer.layers.gru.gru_gates`, given both maps' blocks, `[..., H]`."""
    (node_input, context_state), (node_state, context_input) = (
        [[x[i] for i in of_one] for of_one in places]
        for x, places in ((below, _PLACES_BELOW), (message, _PLACES_MESSAGE))
    )
    return _gates(node_input, node_state), _gates(context_input, context_state)


def next_state(node: Gates, context: Gates, below: jax.Array, message: jax.Array) -> jax.Array:
    """Returns the sum of both GRUs' next states, `[..., H]`."""
    return _next(node, message) + _next(context, below)


def _next(gates: Gates, state: jax.Array) -> jax.Array:
    return (1 - gates.update) * gates.candidate + gates.update * state


def factors(node: Gates, context: Gates, below: jax.Array, message: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the derivatives of a new state, `[..., H]` each.

    Eight are those of blocks of the linear maps (`OF_BELOW`, `OF_MESSAGE`): what a candidate has of the GRU's state is
    scaled by the reset gate. The last two are those of the layer below and of the message themselves.
    """
    (node_reset, node_update, node_candidate), (context_reset, context_update, context_candidate) = (
        _factors(node, message),
        _factors(context, below),
    )
    return (
        *(node_candidate, context_candidate * context.reset),
        *(node_reset, node_update, context_reset, context_update),
        *(node_candidate * node.reset, context_candidate),
        *(context.update, node.update),
    )


def _factors(gates: Gates, state: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns a GRU's derivatives of what its gates are computed from."""
    reset, update, candidate, candidate_state = gates
    of_candidate = (1 - update) * (1 - candidate**2)
    of_update = (state - candidate) * update * (1 - update)
    return of_candidate * candidate_state * reset * (1 - reset), of_update, of_candidate
