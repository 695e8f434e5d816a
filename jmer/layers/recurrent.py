"""Gated recurrent units over conversations."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_multiple
from jmer.layers.initializers import Dtype, Initializer, torch_uniform, with_fan_in
from jmer.layers.slices import put, take
from jmer.layers.stacking import unstacked
from jmer.segments import Segments, check_segments, one_per_row

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


class GRUWeights(NamedTuple):
    """`W` `[D, 3H]`, `b` `[3H]`, `U` `[H, 3H]` and `c` `[3H]`, each for reset, update and candidate in this order."""

    input_kernel: jax.Array
    input_bias: jax.Array
    state_kernel: jax.Array
    state_bias: jax.Array


def gru_weights(
    module: nn.Module,
    name: str,
    width: int,
    hidden: int,
    *,
    kernel_init: Initializer,
    recurrent_kernel_init: Initializer,
    bias_init: Initializer,
    param_dtype: Dtype,
) -> GRUWeights:
    """Creates a GRU's parameters in `module`, all with its hidden width as their fan-in, as in PyTorch."""

    def parameter(suffix: str, init: Initializer, *shape: int) -> jax.Array:
        return module.param(f"{name}_{suffix}", with_fan_in(init, hidden), shape, param_dtype)

    return GRUWeights(
        parameter("input_kernel", kernel_init, width, 3 * hidden),
        parameter("input_bias", bias_init, 3 * hidden),
        parameter("state_kernel", recurrent_kernel_init, hidden, 3 * hidden),
        parameter("state_bias", bias_init, 3 * hidden),
    )


class _GRUs(nn.Module):
    """The arguments of a GRU, and its application to several inputs side by side."""

    features: int
    bidirectional: bool = True
    kernel_init: Initializer = torch_uniform
    recurrent_kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    custom_derivative: bool = True

    def _apply(
        self, inputs: Mapping[str, jax.Array], mask: jax.Array, segments: Segments | None
    ) -> dict[str, jax.Array]:
        """Applies a GRU to each input, all in one loop; an input's name starts the names of its parameters."""
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        check_multiple("features", self.features, len(directions))
        hidden, (rows, length) = self.features // len(directions), mask.shape
        check_segments(segments, length, rows)
        weights, from_input = [], []
        # What leaves a state as it is: an update gate of 1, where nothing is real.
        hold = jnp.repeat(jnp.array([0.0, _CLOSED, 0.0]), hidden)
        for name, x in inputs.items():
            for direction in directions:
                created = gru_weights(
                    self,
                    f"{name}_{direction}" if name else direction,
                    x.shape[-1],
                    hidden,
                    kernel_init=self.kernel_init,
                    recurrent_kernel_init=self.recurrent_kernel_init,
                    bias_init=self.bias_init,
                    param_dtype=self.param_dtype,
                )
                in_time, *promoted = promote_dtype(jnp.moveaxis(x, 1, 0), *created, dtype=self.dtype)
                weights.append(GRUWeights(*promoted))
                in_time = jnp.where(mask.T[..., None], in_time, 0)
                projected = in_time @ weights[-1].input_kernel + weights[-1].input_bias[None, None]
                projected = jnp.where(mask.T[..., None], projected, hold.astype(projected.dtype)[None, None])
                from_input.append(projected if direction == "forward" else projected[::-1])
        segments = one_per_row(rows, length) if segments is None else segments
        begins = segments.starts().T, segments.ends().T[::-1]
        run = _states if self.custom_derivative else _scan_states
        states = run(
            jnp.stack(from_input),
            jnp.stack([w.state_kernel for w in weights]),
            jnp.stack([w.state_bias for w in weights]),
            jnp.stack(begins[: len(directions)] * len(inputs))[..., None],
        )
        states = states.reshape(len(inputs), len(directions), length, rows, hidden)
        outputs = [states[:, 0], states[:, 1, ::-1]] if self.bidirectional else [states[:, 0]]
        states = jnp.moveaxis(jnp.concatenate(outputs, axis=-1), 1, 2)
        return dict(zip(inputs, unstacked(jnp.where(mask[None, ..., None], states, 0)), strict=True))


class BiGRU(_GRUs):
    r"""A bidirectional GRU over conversations (LFVD's Eq. 2).

    .. math:: H = [\overrightarrow{\mathrm{GRU}}(X) \,\|\, \overleftarrow{\mathrm{GRU}}(X)]

    The states skip positions where the mask is False, at the end of a conversation or inside it. Parameters are laid
    out as in PyTorch's `nn.GRU`, whose gates are in `gru_gates`.

    Its reverse-mode derivative is written by hand, which makes a step of training faster. JAX refuses the layer's
    forward mode then (`jax.jvp`, `jax.jacfwd`), and reverse mode over reverse mode; `jax.grad` and `jax.hessian` work.
    `custom_derivative=False` computes the same values by a plain `jax.lax.scan`, which has all of them.

    Attributes:
      features: `D_r`, width of the output, both directions together.
      bidirectional: False = forward only, with all of `features`.
      kernel_init: initializer of the input kernels `[D, 3H]`.
      recurrent_kernel_init: initializer of the state kernels `[H, 3H]`.
      bias_init: initializer of the biases `[3H]`.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.
      custom_derivative: False = a scan that JAX differentiates itself, in any mode and order.

    Examples:
      >>> gru, x = BiGRU(features=16), jnp.ones((2, 5, 8))
      >>> mask = jnp.arange(5)[None] < jnp.array([5, 3])[:, None]
      >>> variables = gru.init(jax.random.key(0), x, mask)
      >>> gru.apply(variables, x, mask).shape
      (2, 5, 16)
    """

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, segments: Segments | None = None) -> jax.Array:
        """Encodes conversations.

        Args:
          x: float `[B, T, D]`; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.

        Returns:
          `[B, T, features]`, zero where `mask` is False.

        Raises:
          TypeError, ValueError: for odd `features` of two directions, or an argument of another kind or shape.
        """
        check_arrays(x=(x, "float [B, T, D]"), mask=(mask, "bool [B, T]"))
        return self._apply({"": x}, mask, segments)[""]


class ModalityBiGRUs(_GRUs):
    """A `BiGRU` of its own for each modality; they advance together, one product per step for all of them.

    Attributes: those of `BiGRU`.

    Examples:
      >>> grus, mask = ModalityBiGRUs(features=16), jnp.ones((2, 5), bool)
      >>> features = {"text": jnp.ones((2, 5, 8)), "audio": jnp.ones((2, 5, 4))}
      >>> out, _ = grus.init_with_output(jax.random.key(0), features, mask)
      >>> out["audio"].shape
      (2, 5, 16)
    """

    @nn.compact
    def __call__(
        self, features: Mapping[str, jax.Array], mask: jax.Array, *, segments: Segments | None = None
    ) -> dict[str, jax.Array]:
        """Encodes each modality.

        Args:
          features: modality -> float `[B, T, D_m]`; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.

        Returns:
          Modality -> `[B, T, features]`, zero where `mask` is False.

        Raises:
          TypeError, ValueError: for odd `features` of two directions, or an argument of another kind or shape.
        """
        check_arrays(mask=(mask, "bool [B, T]"), features=(features, "modality -> float [B, T, _]"))
        return self._apply(features, mask, segments)


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
