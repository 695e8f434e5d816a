"""The gated recurrent unit, and a bidirectional GRU over rows of conversations."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.initializers import kernel_and_bias
from jmer.layers.stacking import unstacked
from jmer.segments import Segments, one_per_row


def gru_update(from_input: jax.Array, from_state: jax.Array, state: jax.Array) -> jax.Array:
    """Returns a GRU's next state, given both linear maps (Cho et al., 2014, in PyTorch's form).

    With reset `r`, update `z` and candidate `n` side by side in the last axis:

    .. math:: r = σ(x_r + h_r), z = σ(x_z + h_z), n = \\tanh(x_n + r ⊙ h_n), h' = (1 - z) ⊙ n + z ⊙ h

    Args:
      from_input: `[..., 3H]`, `W x + b`.
      from_state: `[..., 3H]`, `U h + c`.
      state: `[..., H]`, `h`.

    Returns:
      `[..., H]`.
    """
    input_reset, input_update, input_candidate = jnp.split(from_input, 3, axis=-1)
    state_reset, state_update, state_candidate = jnp.split(from_state, 3, axis=-1)
    reset = jax.nn.sigmoid(input_reset + state_reset)
    update = jax.nn.sigmoid(input_update + state_update)
    candidate = jnp.tanh(input_candidate + reset * state_candidate)
    return (1 - update) * candidate + update * state


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
    hidden = module.width // len(directions)
    weights, from_input = [], []
    for name, x in inputs.items():
        for direction in directions:
            prefix = f"{name}_{direction}" if name else direction
            weights.append(gru_weights(module, prefix, x.shape[-1], hidden, module.initialization))
            x_in_order = x if direction == "forward" else x[:, ::-1]
            projected = jnp.einsum("btd,dh->tbh", x_in_order, weights[-1].input_kernel)
            from_input.append(projected + weights[-1].input_bias[None, None])
    state_kernel = jnp.stack([w.state_kernel for w in weights])
    state_bias = jnp.stack([w.state_bias for w in weights])[:, None]
    segments = one_per_row(*mask.shape) if segments is None else segments
    before_padding = jnp.pad(~mask[:, 1:], ((0, 0), (0, 1)))
    begins = segments.starts(), (segments.ends() | before_padding)[:, ::-1]
    begins = jnp.moveaxis(jnp.stack(begins[: len(directions)] * len(inputs)), 2, 0)[..., None]

    def step(state, at_this_time):
        from_input, begins = at_this_time
        state = jnp.where(begins, 0, state)
        from_state = jnp.einsum("rbh,rhk->rbk", state, state_kernel) + state_bias
        state = gru_update(from_input, from_state, state)
        return state, state

    start = jnp.zeros((len(weights), mask.shape[0], hidden), from_input[0].dtype)
    _, states = jax.lax.scan(step, start, (jnp.stack(from_input, axis=1), begins))
    states = states.reshape(len(states), len(inputs), len(directions), *states.shape[2:])
    outputs = [states[:, :, 0], states[::-1, :, 1]] if module.bidirectional else [states[:, :, 0]]
    read = jnp.where(mask[None, ..., None], jnp.moveaxis(jnp.concatenate(outputs, axis=-1), 0, 2), 0)
    return dict(zip(inputs, unstacked(read), strict=True))
