"""The layers of a deep graph convolution, one after the other, with a derivative written by hand.

It keeps of each layer what cannot be computed again for little; gradients of what the layers share are summed as the
loop goes back, since arrays of all layers take longer to write and read than to multiply.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jmer.layers.lstm import LSTMGates, LSTMState, lstm_backward, lstm_gates, lstm_next


@struct.dataclass
class Edges:
    """Weights of edges between utterances of a modality, `[B, M, T, T]`, and between an utterance's, `[B, M, M, T]`."""

    within: jax.Array
    across: jax.Array


def propagate(edges: Edges, x: jax.Array) -> jax.Array:
    """Returns each node's weighted sum over its neighbours, of `x` `[B, M, T, G]`."""
    # Products of M x M matrices, one for each utterance, would be slower than sums of whole arrays.
    return edges.within @ x + (edges.across[..., None] * x[:, None]).sum(2)


class LSTMWeights(NamedTuple):
    """The weights of an LSTM's one linear map: `[2G, 4G]`, of the input and then of the state, and `[4G]`."""

    kernel: jax.Array
    bias: jax.Array


class Weights(NamedTuple):
    """What the layers multiply with.

    Attributes:
      kernels: `[L, 2G, G]`, of what comes from the neighbours and then of the layers' input.
      lstm: that which runs along the layers; None = none does.
    """

    kernels: jax.Array
    lstm: LSTMWeights | None


class _Kept(NamedTuple):
    """What the derivative needs of each layer, `[L, B, M, T, G]` each; without an LSTM there is nothing of it.

    Attributes:
      entering: the layer's input.
      gates, state: of the LSTM, its state after the layer.
      around: the sum over neighbours.
      active: where the ReLU passes.
    """

    entering: jax.Array
    gates: LSTMGates | None
    state: LSTMState | None
    around: jax.Array
    active: jax.Array


def run_layers(
    x: jax.Array, edges: Edges, weights: Weights, factors: jax.Array | None, *, custom_derivative: bool = True
) -> jax.Array:
    """Runs the layers; see `jmer.layers.DeepGraphConvolution`.

    Args:
      x: `[B, M, T, G]`.
      edges: of the graph.
      weights: of all layers.
      factors: of dropout, `[L + 1, B, M, T, G]`, of the first layer's input and of what each layer gives; no gradient
        passes to them. None = no dropout.
      custom_derivative: False = a scan that JAX differentiates itself, in forward mode too.

    Returns:
      `[B, M, T, G]`.
    """
    return (_layers if custom_derivative else _scan_layers)(x, edges, weights, factors)


@jax.custom_vjp
def _layers(x: jax.Array, edges: Edges, weights: Weights, factors: jax.Array | None) -> jax.Array:
    return _scan_layers(x, edges, weights, factors)


def _scan_layers(x: jax.Array, edges: Edges, weights: Weights, factors: jax.Array | None) -> jax.Array:
    return _run(x, edges, weights, factors)[0]


def _layers_forward(x, edges, weights, factors):
    out, kept = _run(x, edges, weights, factors)
    return out, (x, edges, weights, factors, kept)


def _run(start: jax.Array, edges: Edges, weights: Weights, factors: jax.Array | None) -> tuple[jax.Array, _Kept]:
    lstm, width = weights.lstm, start.shape[-1]

    def layer(carry, inputs):
        x, state = carry
        kernel, factor = inputs
        gates, source = None, x
        if lstm is not None:
            linear = jnp.concatenate([x, state.output], axis=-1) @ lstm.kernel + lstm.bias[None, None, None]
            gates = lstm_gates(linear)
            state = lstm_next(gates, state.cell)
            source = state.output
        around = propagate(edges, source)
        out = nn.relu(around @ kernel[:width] + start @ kernel[width:])
        kept = _Kept(x, gates, state, around, out > 0)
        out = out if factor is None else out * factor
        return (out if lstm is None else x + out, state), kept

    zero = jnp.zeros_like(start)
    first, later = (None, None) if factors is None else (factors[0], factors[1:])
    x = start if first is None else start * first
    state = None if lstm is None else LSTMState(zero, zero)
    (out, _), kept = jax.lax.scan(layer, (x, state), (weights.kernels, later))
    return out, kept


def _layers_backward(saved, out_bar):
    start, edges, weights, factors, kept = saved
    lstm, width = weights.lstm, start.shape[-1]
    # Laid out once for products that would otherwise run along the memory's slow direction in every layer.
    back = jax.lax.optimization_barrier(
        (
            Edges(jnp.swapaxes(edges.within, -1, -2), jnp.swapaxes(edges.across, 1, 2)),
            jnp.swapaxes(weights.kernels, 1, 2),
            None if lstm is None else lstm.kernel.T,
        )
    )
    edges_back, kernels_back, lstm_back = back
    before = None if kept.state is None else jax.tree.map(_before, kept.state)

    def layer(carry, inputs):
        x_bar, state_bar, start_bar, edges_bar, lstm_bar = carry
        kernel_back, factor, kept, before = inputs
        out_bar = x_bar if factor is None else x_bar * factor
        linear_bar = jnp.where(kept.active, out_bar, 0)
        both = linear_bar @ kernel_back
        around_bar, start_bar = both[..., :width], start_bar + both[..., width:]
        kernel_bar = jnp.concatenate([_outer(kept.around, linear_bar), _outer(start, linear_bar)])
        source = kept.entering if kept.state is None else kept.state.output
        edges_bar = Edges(
            edges_bar.within + around_bar @ jnp.swapaxes(source, -1, -2),
            edges_bar.across + (around_bar[:, :, None] * source[:, None]).sum(-1),
        )
        source_bar = propagate(edges_back, around_bar)
        if lstm is None:
            x_bar = source_bar
        else:
            state_bar = state_bar._replace(output=state_bar.output + source_bar)
            gates_bar, cell_bar = lstm_backward(kept.gates, before.cell, kept.state.cell, state_bar)
            both = gates_bar @ lstm_back
            x_bar, state_bar = x_bar + both[..., :width], LSTMState(both[..., width:], cell_bar)
            lstm_bar = LSTMWeights(
                lstm_bar.kernel + jnp.concatenate([_outer(kept.entering, gates_bar), _outer(before.output, gates_bar)]),
                lstm_bar.bias + gates_bar.sum((0, 1, 2)),
            )
        return (x_bar, state_bar, start_bar, edges_bar, lstm_bar), kernel_bar

    zero = jnp.zeros_like(start)
    state_bar = None if lstm is None else LSTMState(zero, zero)
    carry = out_bar, state_bar, zero, *jax.tree.map(jnp.zeros_like, (edges, lstm))
    later = None if factors is None else factors[1:]
    (x_bar, _, start_bar, edges_bar, lstm_bar), kernels_bar = jax.lax.scan(
        layer, carry, (kernels_back, later, kept, before), reverse=True
    )
    start_bar = start_bar + (x_bar if factors is None else x_bar * factors[0])
    return start_bar, edges_bar, Weights(kernels_bar, lstm_bar), None


def _outer(x: jax.Array, bar: jax.Array) -> jax.Array:
    """Returns the gradient of a kernel by which `x` `[..., G]` was multiplied."""
    return x.reshape(-1, x.shape[-1]).T @ bar.reshape(-1, bar.shape[-1])


_layers.defvjp(_layers_forward, _layers_backward)


def _before(x: jax.Array) -> jax.Array:
    """Returns what was there before each layer, zero before the first."""
    return jnp.pad(x[:-1], ((1, 0), *[(0, 0)] * (x.ndim - 1)))
