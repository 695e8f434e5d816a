"""The gated recurrent unit, and a bidirectional GRU over padded conversations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.initializers import kernel_and_bias


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
    """Reads a padded conversation in both directions (LFVD Eq. 2).

    The backward direction starts at the last real utterance. Padding neither is read nor changes a state.

    Attributes:
      width: `D_r`, width of the output, both directions together.
      bidirectional: False = forward only, with all of `width`.
      initialization: see `jmer.layers.initializers`.
    """

    width: int
    bidirectional: bool = True
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps `x` `[B, T, D]` with bool `mask` `[B, T]` to `[B, T, width]`, zero where padded.

        Raises:
          ValueError: if `width` is odd and both directions are read.
        """
        names = ("forward", "backward") if self.bidirectional else ("forward",)
        if self.width % len(names):
            raise ValueError(f"the width of a bidirectional GRU must be even, not {self.width}")
        hidden = self.width // len(names)
        weights = [gru_weights(self, name, x.shape[-1], hidden, self.initialization) for name in names]
        weights = GRUWeights(*map(jnp.stack, zip(*weights, strict=True)))

        # The second direction reads time reversed: its padding comes first and leaves the zero state as it is.
        x = jnp.stack([x, x[:, ::-1]][: len(names)])
        mask = jnp.stack([mask, mask[:, ::-1]][: len(names)])
        from_input = jnp.einsum("ibtd,idh->tibh", x, weights.input_kernel) + weights.input_bias[None, :, None]

        def step(state, inputs):
            from_input, real = inputs
            from_state = jnp.einsum("ibh,ihk->ibk", state, weights.state_kernel) + weights.state_bias[:, None]
            state = jnp.where(real[..., None], gru_update(from_input, from_state, state), state)
            return state, state

        start = jnp.zeros((len(names), x.shape[1], hidden), x.dtype)
        _, states = jax.lax.scan(step, start, (from_input, jnp.moveaxis(mask, 2, 0)))
        states = jnp.where(jnp.moveaxis(mask, 2, 0)[..., None], states, 0)
        outputs = [states[:, 0], states[::-1, 1]] if self.bidirectional else [states[:, 0]]
        return jnp.moveaxis(jnp.concatenate(outputs, axis=-1), 0, 1)
