"""The recurrence of a long short-term memory (LSTM): its gates, and the loop over time with its derivative."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmer.layers.slices import put, take


class LSTMState(NamedTuple):
    """The state of an LSTM: what it puts out and its cell, `[..., H]` each."""

    output: jax.Array
    cell: jax.Array


class LSTMGates(NamedTuple):
    """The gates of an LSTM, `[..., H]` each, from which its next state follows."""

    input: jax.Array
    forget: jax.Array
    candidate: jax.Array
    output: jax.Array


def lstm_gates(linear: jax.Array) -> LSTMGates:
    r"""Returns an LSTM's gates, given the sum of its linear maps (Hochreiter & Schmidhuber, 1997, in PyTorch's form).

    With input gate i, forget gate f, candidate g and output gate o side by side in the last axis:

    .. math::
        i, f, o = \sigma(\cdot), \quad g = \tanh(\cdot), \quad c' = f \odot c + i \odot g, \quad
        h' = o \odot \tanh(c')

    Args:
      linear: `[..., 4H]`, `W x + b + U h + c`.
    """
    i, f, g, o = jnp.split(linear, 4, axis=-1)
    return LSTMGates(jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o))


def lstm_next(gates: LSTMGates, cell: jax.Array) -> LSTMState:
    """Returns the state after the one with this `cell` `[..., H]`."""
    cell = gates.forget * cell + gates.input * gates.candidate
    return LSTMState(gates.output * jnp.tanh(cell), cell)


def lstm_backward(
    gates: LSTMGates, cell: jax.Array, next_cell: jax.Array, next_bar: LSTMState
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of what `lstm_gates` takes, `[..., 4H]`, and of the cell in `lstm_next`.

    Args:
      gates, cell: what `lstm_next` took.
      next_cell: the cell that it returned.
      next_bar: gradients of both arrays that it returned.
    """
    squashed = jnp.tanh(next_cell)
    cell_bar = next_bar.cell + next_bar.output * gates.output * (1 - squashed**2)
    bars = (
        cell_bar * gates.candidate * gates.input * (1 - gates.input),
        cell_bar * cell * gates.forget * (1 - gates.forget),
        cell_bar * gates.input * (1 - gates.candidate**2),
        next_bar.output * squashed * gates.output * (1 - gates.output),
    )
    return jnp.concatenate(bars, axis=-1), cell_bar * gates.forget


def lstm_states(
    from_input: jax.Array,
    kernels: jax.Array,
    biases: jax.Array,
    begins: jax.Array,
    real: jax.Array,
    *,
    custom_derivative: bool = True,
) -> jax.Array:
    """Runs `G` LSTMs side by side.

    Args:
      from_input: `[G, T, B, 4H]`, the input's linear map with its bias, see `lstm_gates`.
      kernels: `[G, H, 4H]`, for the states.
      biases: `[G, 4H]`, for the states.
      begins: bool `[G, T, B, 1]`, True where the state before is zero.
      real: bool `[G, T, B, 1]`; where it is False, the state stays as it is.
      custom_derivative: False = a scan that JAX differentiates itself, in any mode and order.

    Returns:
      `[G, T, B, H]`.
    """
    from_input = from_input + biases[:, None, None]
    return (_states if custom_derivative else _scan_states)(from_input, kernels, begins, real)


@jax.custom_vjp
def _states(from_input: jax.Array, kernels: jax.Array, begins: jax.Array, real: jax.Array) -> jax.Array:
    """Computes `lstm_states`; the weights' gradients are one product each, after the steps back."""
    return _run(from_input, kernels, begins, real, keep=False)[0]


def _states_forward(from_input, kernels, begins, real):
    outputs, cells, gates = _run(from_input, kernels, begins, real, keep=True)
    return outputs, (kernels, begins, real, outputs, cells, gates)


def _run(
    from_input: jax.Array, kernels: jax.Array, begins: jax.Array, real: jax.Array, *, keep: bool
) -> tuple[jax.Array, jax.Array | None, LSTMGates | None]:
    """Returns the outputs and, if they are to be kept, cells and gates."""
    (count, steps, rows, _), hidden = from_input.shape, kernels.shape[1]

    def step(t, carry):
        state, outputs, kept = carry
        begin, of_input = take(begins, t, axis=1), take(from_input, t, axis=1)
        state, made = _advance(state, of_input, kernels, begin, take(real, t, axis=1))
        if keep:
            kept = jax.tree.map(lambda buffer, value: put(buffer, value, t, axis=1), kept, (state.cell, made))
        return state, put(outputs, state.output, t, axis=1), kept

    def empty(*shape):
        return jnp.zeros((*shape, hidden), from_input.dtype)

    buffer = empty(count, steps, rows)
    kept = (buffer, LSTMGates(buffer, buffer, buffer, buffer)) if keep else None
    start = LSTMState(empty(count, rows), empty(count, rows)), buffer, kept
    _, outputs, kept = jax.lax.fori_loop(0, steps, step, start)
    return outputs, *(kept or (None, None))


def _advance(
    state: LSTMState, of_input: jax.Array, kernels: jax.Array, begin: jax.Array, real: jax.Array
) -> tuple[LSTMState, LSTMGates]:
    """Takes one step of all LSTMs, `[G, B, ...]`; returns the gates too."""
    state = jax.tree.map(lambda x: jnp.where(begin, 0, x), state)
    made = lstm_gates(of_input + jnp.einsum("gbh,ghk->gbk", state.output, kernels))
    after = lstm_next(made, state.cell)
    return jax.tree.map(lambda new, old: jnp.where(real, new, old), after, state), made


def _states_backward(saved, outputs_bar):
    kernels, begins, real, outputs, cells, gates = saved

    def before(x):
        return jnp.where(begins, 0, jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0))))

    outputs_before, cells_before, steps = before(outputs), before(cells), outputs.shape[1]
    # Laid out once for products that would otherwise run along the memory's slow direction at every step.
    kernels_back = jax.lax.optimization_barrier(jnp.swapaxes(kernels, 1, 2))

    def step(i, carry):
        state_bar, all_bar = carry
        t = steps - 1 - i
        state_bar = state_bar._replace(output=state_bar.output + take(outputs_bar, t, axis=1))
        made = jax.tree.map(lambda buffer: take(buffer, t, axis=1), gates)
        here, begin = take(real, t, axis=1), take(begins, t, axis=1)
        linear_bar, cell_bar = lstm_backward(made, take(cells_before, t, axis=1), take(cells, t, axis=1), state_bar)
        linear_bar = jnp.where(here, linear_bar, 0)
        before_bar = LSTMState(
            jnp.where(here, jnp.einsum("gbk,gkh->gbh", linear_bar, kernels_back), state_bar.output),
            jnp.where(here, cell_bar, state_bar.cell),
        )
        before_bar = jax.tree.map(lambda x: jnp.where(begin, 0, x), before_bar)
        return before_bar, put(all_bar, linear_bar, t, axis=1)

    zero = jnp.zeros_like(outputs[:, 0])
    empty = jnp.zeros((*outputs.shape[:3], kernels.shape[2]), outputs.dtype)
    _, all_bar = jax.lax.fori_loop(0, steps, step, (LSTMState(zero, zero), empty))
    return all_bar, jnp.einsum("gtbh,gtbk->ghk", outputs_before, all_bar), None, None


_states.defvjp(_states_forward, _states_backward)


def _scan_states(from_input: jax.Array, kernels: jax.Array, begins: jax.Array, real: jax.Array) -> jax.Array:
    """Computes `lstm_states` by a scan, whose derivatives of any mode and order are JAX's own."""

    def step(state, inputs):
        of_input, begin, here = inputs
        state, _ = _advance(state, of_input, kernels, begin, here)
        return state, state.output

    count, _, rows, _ = from_input.shape
    zero = jnp.zeros((count, rows, kernels.shape[1]), from_input.dtype)
    inputs = tuple(jnp.moveaxis(x, 1, 0) for x in (from_input, begins, real))
    return jnp.moveaxis(jax.lax.scan(step, LSTMState(zero, zero), inputs)[1], 0, 1)
