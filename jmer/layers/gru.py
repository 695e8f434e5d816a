"""The recurrence of a gated recurrent unit (GRU): its gates, and the loop over time with its derivative."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmer.layers.slices import put, take

# An input to the update gate whose sigmoid is exactly 1, whatever the state adds to it.
_CLOSED = 1e4


class Gates(NamedTuple):
    """The gates of a GRU, from which its next state follows.

    Attributes:
      reset_update: `[..., 2H]`, reset and update gates side by side.
      candidate: `[..., H]`.
      candidate_state: `[..., H]`, the state's part of the candidate.
    """

    reset_update: jax.Array
    candidate: jax.Array
    candidate_state: jax.Array


class GatesBar(NamedTuple):
    """Gradients of a GRU's two linear maps, `[..., 3H]` each."""

    input: jax.Array
    state: jax.Array


def gru_gates(from_input: jax.Array, from_state: jax.Array) -> Gates:
    r"""Returns a GRU's gates, given both linear maps (Cho et al., 2014, in PyTorch's form).

    With reset r, update z and candidate n side by side in the last axis:

    .. math::
        r = \sigma(x_r + h_r), \quad z = \sigma(x_z + h_z), \quad n = \tanh(x_n + r \odot h_n), \quad
        h' = (1 - z) \odot n + z \odot h

    Args:
      from_input: `[..., 3H]`, `W x + b`.
      from_state: `[..., 3H]`, `U h + c`.
    """
    width = from_input.shape[-1] // 3
    reset_update = jax.nn.sigmoid(from_input[..., : 2 * width] + from_state[..., : 2 * width])
    candidate_state = from_state[..., 2 * width :]
    candidate = jnp.tanh(from_input[..., 2 * width :] + reset_update[..., :width] * candidate_state)
    return Gates(reset_update, candidate, candidate_state)


def gru_next(gates: Gates, state: jax.Array) -> jax.Array:
    """Returns the state after `state` `[..., H]`."""
    update = gates.reset_update[..., state.shape[-1] :]
    return (1 - update) * gates.candidate + update * state


def gru_backward(gates: Gates, state: jax.Array, next_bar: jax.Array) -> tuple[GatesBar, jax.Array]:
    """Returns the gradients of what `gru_gates` takes, and of the state in `gru_next`, `[..., H]`."""
    reset, update = jnp.split(gates.reset_update, 2, axis=-1)
    candidate_bar = next_bar * (1 - update) * (1 - gates.candidate**2)
    update_bar = next_bar * (state - gates.candidate) * update * (1 - update)
    reset_bar = candidate_bar * gates.candidate_state * reset * (1 - reset)
    return (
        GatesBar(
            jnp.concatenate([reset_bar, update_bar, candidate_bar], axis=-1),
            jnp.concatenate([reset_bar, update_bar, candidate_bar * reset], axis=-1),
        ),
        next_bar * update,
    )


def gru_states(
    from_input: jax.Array,
    kernels: jax.Array,
    biases: jax.Array,
    begins: jax.Array,
    real: jax.Array,
    *,
    custom_derivative: bool = True,
) -> jax.Array:
    """Runs `G` GRUs side by side.

    Args:
      from_input: `[G, T, B, 3H]`, see `gru_gates`.
      kernels: `[G, H, 3H]`, for the states.
      biases: `[G, 3H]`, for the states.
      begins: bool `[G, T, B, 1]`, True where the state before is zero.
      real: bool `[G, T, B, 1]`; where it is False, the state stays as it is.
      custom_derivative: False = a scan that JAX differentiates itself, in any mode and order.

    Returns:
      `[G, T, B, H]`.
    """
    # What leaves a state as it is: an update gate of 1.
    hold = jnp.repeat(jnp.array([0.0, _CLOSED, 0.0], from_input.dtype), kernels.shape[1])
    from_input = jnp.where(real, from_input, hold[None, None, None])
    arguments = from_input, kernels, biases, begins
    if not custom_derivative:
        return _scan_states(*arguments)
    # An accelerator's time depends on the number of operations of a step: each gate that is kept is one more.
    return jax.lax.platform_dependent(
        *arguments, cpu=functools.partial(_states, True), default=functools.partial(_states, False)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(keep: bool, from_input: jax.Array, kernels: jax.Array, biases: jax.Array, begins: jax.Array) -> jax.Array:
    """Computes `gru_states`; the weights' gradients are one product each, after the steps back.

    The gates are kept for the way back, or computed again from the states, for all steps at once.
    """
    return _run(from_input, kernels, biases, begins, keep=False)[0]


def _states_forward(keep, from_input, kernels, biases, begins):
    states, gates = _run(from_input, kernels, biases, begins, keep=keep)
    return states, (gates if keep else (from_input, biases), kernels, begins, states)


def _run(
    from_input: jax.Array, kernels: jax.Array, biases: jax.Array, begins: jax.Array, *, keep: bool
) -> tuple[jax.Array, Gates | None]:
    """Returns the states and, if they are to be kept, the gates."""
    (count, steps, rows, _), hidden = from_input.shape, kernels.shape[1]

    def step(t, carry):
        state, states, gates = carry
        state = jnp.where(take(begins, t, axis=1), 0, state)
        made = gru_gates(take(from_input, t, axis=1), jnp.einsum("gbh,ghk->gbk", state, kernels) + biases[:, None])
        state = gru_next(made, state)
        if keep:
            gates = jax.tree.map(lambda buffer, value: put(buffer, value, t, axis=1), gates, made)
        return state, put(states, state, t, axis=1), gates

    def empty(*shape):
        return jnp.zeros(shape, from_input.dtype)

    gates = Gates(*(empty(count, steps, rows, width) for width in (2 * hidden, hidden, hidden)))
    start = empty(count, rows, hidden), empty(count, steps, rows, hidden), gates if keep else None
    return jax.lax.fori_loop(0, steps, step, start)[1:]


def _states_backward(keep, saved, states_bar):
    kept, kernels, begins, states = saved
    before, steps = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0))), states.shape[1]
    before = jnp.where(begins, 0, before)
    gates = kept if keep else _all_gates(kept[0], kept[1], kernels, before)
    # Laid out once for products that would otherwise run along the memory's slow direction at every step.
    kernels_back = jax.lax.optimization_barrier(jnp.swapaxes(kernels, 1, 2))

    def step(i, carry):
        state_bar, all_bar = carry
        t = steps - 1 - i
        state_bar += take(states_bar, t, axis=1)
        made = jax.tree.map(lambda buffer: take(buffer, t, axis=1), gates)
        of_gates, before_bar = gru_backward(made, take(before, t, axis=1), state_bar)
        before_bar += jnp.einsum("gbk,gkh->gbh", of_gates.state, kernels_back)
        return jnp.where(take(begins, t, axis=1), 0, before_bar), put(all_bar, state_bar, t, axis=1)

    start = jnp.zeros_like(states_bar[:, 0]), jnp.zeros_like(states_bar)
    _, all_bar = jax.lax.fori_loop(0, steps, step, start)
    of_gates, _ = gru_backward(gates, before, all_bar)
    kernels_bar = jnp.einsum("gtbh,gtbk->ghk", before, of_gates.state)
    return of_gates.input, kernels_bar, of_gates.state.sum((1, 2)), None


_states.defvjp(_states_forward, _states_backward)


def _all_gates(from_input: jax.Array, biases: jax.Array, kernels: jax.Array, before: jax.Array) -> Gates:
    """Returns the gates of all steps, given the states before."""
    return gru_gates(from_input, jnp.einsum("gtbh,ghk->gtbk", before, kernels) + biases[:, None, None])


def _scan_states(from_input: jax.Array, kernels: jax.Array, biases: jax.Array, begins: jax.Array) -> jax.Array:
    """Computes `_states` by a scan, whose derivatives of any mode and order are JAX's own."""

    def step(state, inputs):
        of_input, begin = inputs
        state = jnp.where(begin, 0, state)
        state = gru_next(gru_gates(of_input, jnp.einsum("gbh,ghk->gbk", state, kernels) + biases[:, None]), state)
        return state, state

    count, _, rows, _ = from_input.shape
    start = jnp.zeros((count, rows, kernels.shape[1]), from_input.dtype)
    inputs = jnp.moveaxis(from_input, 1, 0), jnp.moveaxis(begins, 1, 0)
    return jnp.moveaxis(jax.lax.scan(step, start, inputs)[1], 0, 1)
