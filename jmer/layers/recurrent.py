"""The gated recurrent unit, and a bidirectional GRU over rows of conversations."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.initializers import kernel_and_bias
from jmer.layers.slices import put, take
from jmer.layers.stacking import unstacked
from jmer.segments import Segments, one_per_row


class Gates(NamedTuple):
    """What a GRU computes for its next state.

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
    """Returns a GRU's gates, given both linear maps (Cho et al., 2014, in PyTorch's form).

    With reset `r`, update `z` and candidate `n` side by side in the last axis:

    .. math:: r = σ(x_r + h_r), z = σ(x_z + h_z), n = \\tanh(x_n + r ⊙ h_n), h' = (1 - z) ⊙ n + z ⊙ h

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


class GRUWeights(NamedTuple):
    """`W` `[D, 3H]`, `b` `[3H]`, `U` `[H, 3H]` and `c` `[3H]`, each for reset, update and candidate in this order."""

    input_kernel: jax.Array
    input_bias: jax.Array
    state_kernel: jax.Array
    state_bias: jax.Array


def gru_weights(module: nn.Module, name: str, width: int, hidden: int, initialization: str) -> GRUWeights:
    """Creates a GRU's parameters in `module`, all with the fan `hidden`, as PyTorch has it."""
    kernel, bias = kernel_and_bias(initialization, hidden)
    return GRUWeights(
        module.param(f"{name}_input_kernel", kernel, (width, 3 * hidden)),
        module.param(f"{name}_input_bias", bias, (3 * hidden,)),
        module.param(f"{name}_state_kernel", kernel, (hidden, 3 * hidden)),
        module.param(f"{name}_state_bias", bias, (3 * hidden,)),
    )


class BiGRU(nn.Module):
    """Reads conversations in both directions (LFVD Eq. 2).

    Each conversation is read by itself, the backward direction from its last real utterance. Padding is not read.

    Attributes:
      width: `D_r`, width of the output, both directions together.
      bidirectional: False = forward only, with all of `width`.
      initialization: see `jmer.layers.initializers`.
    """

    width: int
    bidirectional: bool = True
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, segments: Segments | None = None) -> jax.Array:
        """Maps `x` `[B, T, D]` to `[B, T, width]`, zero where padded.

        Args:
          x: float32 `[B, T, D]`.
          mask: bool `[B, T]`, True where an utterance is real; padding must come last.
          segments: the conversations of each row, None = one per row.

        Raises:
          ValueError: if `width` is odd and both directions are read.
        """
        return _read_all(self, {"": x}, mask, segments)[""]


class ModalityBiGRUs(nn.Module):
    """A `BiGRU` of its own for each modality; they advance together, so that a step costs one product, not several.

    Attributes:
      width, bidirectional, initialization: see `BiGRU`.
    """

    width: int
    bidirectional: bool = True
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(
        self, features: Mapping[str, jax.Array], mask: jax.Array, segments: Segments | None = None
    ) -> dict[str, jax.Array]:
        """Maps modality -> `[B, T, D_m]` to modality -> `[B, T, width]`, zero where padded.

        Args:
          features: modality -> float32 `[B, T, D_m]`.
          mask: bool `[B, T]`, True where an utterance is real; padding must come last.
          segments: the conversations of each row, None = one per row.

        Raises:
          ValueError: if `width` is odd and both directions are read.
        """
        return _read_all(self, features, mask, segments)


def _read_all(
    module: BiGRU | ModalityBiGRUs, inputs: Mapping[str, jax.Array], mask: jax.Array, segments: Segments | None
) -> dict[str, jax.Array]:
    """Reads several inputs in the module's directions in one scan; an input's name starts its parameters' names."""
    directions = ("forward", "backward") if module.bidirectional else ("forward",)
    if module.width % len(directions):
        raise ValueError(f"the width of a bidirectional GRU must be even, not {module.width}")
    hidden, (rows, length) = module.width // len(directions), mask.shape
    weights, from_input = [], []
    for name, x in inputs.items():
        in_time = jnp.moveaxis(x, 1, 0)
        for direction in directions:
            prefix = f"{name}_{direction}" if name else direction
            weights.append(gru_weights(module, prefix, x.shape[-1], hidden, module.initialization))
            projected = in_time @ weights[-1].input_kernel + weights[-1].input_bias[None, None]
            from_input.append(projected if direction == "forward" else projected[::-1])
    segments = one_per_row(rows, length) if segments is None else segments
    before_padding = jnp.pad(~mask[:, 1:], ((0, 0), (0, 1)))
    begins = segments.starts().T, (segments.ends() | before_padding).T[::-1]
    states = _states(
        jnp.stack(from_input),
        jnp.stack([w.state_kernel for w in weights]),
        jnp.stack([w.state_bias for w in weights]),
        jnp.stack(begins[: len(directions)] * len(inputs))[..., None],
    )
    states = states.reshape(len(inputs), len(directions), length, rows, hidden)
    outputs = [states[:, 0], states[:, 1, ::-1]] if module.bidirectional else [states[:, 0]]
    read = jnp.moveaxis(jnp.concatenate(outputs, axis=-1), 1, 2)
    return dict(zip(inputs, unstacked(jnp.where(mask[None, ..., None], read, 0)), strict=True))


@jax.custom_vjp
def _states(from_input: jax.Array, kernels: jax.Array, biases: jax.Array, begins: jax.Array) -> jax.Array:
    """Runs `G` GRUs side by side; the weights' gradients are one product each, after the steps back.

    Args:
      from_input: `[G, T, B, 3H]`, see `gru_gates`.
      kernels: `[G, H, 3H]`, for the states.
      biases: `[G, 3H]`.
      begins: bool `[G, T, B, 1]`, True where the state before is zero.

    Returns:
      `[G, T, B, H]`.
    """
    return _run(from_input, kernels, biases, begins, keep=False)[0]


def _states_forward(from_input, kernels, biases, begins):
    states, gates = _run(from_input, kernels, biases, begins, keep=True)
    return states, (kernels, begins, states, gates)


def _run(from_input, kernels, biases, begins, *, keep: bool):
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


def _states_backward(saved, states_bar):
    kernels, begins, states, gates = saved
    before, steps = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0))), states.shape[1]
    before = jnp.where(begins, 0, before)
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
