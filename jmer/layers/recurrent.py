"""Recurrent networks over conversations: GRUs and LSTMs, in both directions, in layers."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_at_least_one, check_multiple
from jmer.layers.dropout import ConversationDropout
from jmer.layers.gru import gru_states
from jmer.layers.initializers import Dtype, Initializer, torch_uniform, with_fan_in
from jmer.layers.lstm import lstm_states
from jmer.layers.precision import at_least_float32
from jmer.layers.stacking import unstacked
from jmer.segments import Segments, check_segments, one_per_row


class Cell(NamedTuple):
    """A kind of recurrent cell: the number of its gates, and the loop over time (`gru_states`, `lstm_states`)."""

    gates: int
    states: Callable[..., jax.Array]


CELLS = {"gru": Cell(3, gru_states), "lstm": Cell(4, lstm_states)}
"""Recurrent cells by name."""


class RecurrentWeights(NamedTuple):
    """`W` `[D, nH]`, `b` `[nH]`, `U` `[H, nH]` and `c` `[nH]` of a cell with `n` gates, side by side.

    The order of the gates is PyTorch's: reset, update and candidate of a GRU; input, forget, candidate and output of an
    LSTM.
    """

    input_kernel: jax.Array
    input_bias: jax.Array
    state_kernel: jax.Array
    state_bias: jax.Array


def recurrent_weights(
    module: nn.Module,
    name: str,
    width: int,
    hidden: int,
    *,
    gates: int,
    kernel_init: Initializer,
    recurrent_kernel_init: Initializer,
    bias_init: Initializer,
    param_dtype: Dtype,
) -> RecurrentWeights:
    """Creates a cell's parameters in `module`, all with its hidden width as their fan-in, as in PyTorch."""

    def parameter(suffix: str, init: Initializer, *shape: int) -> jax.Array:
        return module.param(f"{name}_{suffix}", with_fan_in(init, hidden), shape, param_dtype)

    return RecurrentWeights(
        parameter("input_kernel", kernel_init, width, gates * hidden),
        parameter("input_bias", bias_init, gates * hidden),
        parameter("state_kernel", recurrent_kernel_init, hidden, gates * hidden),
        parameter("state_bias", bias_init, gates * hidden),
    )


class _Recurrent(nn.Module):
    """The arguments of a recurrent layer, and its application to several inputs side by side."""

    features: int
    bidirectional: bool = True
    kernel_init: Initializer = torch_uniform
    recurrent_kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    custom_derivative: bool = True

    def _apply(
        self, inputs: Mapping[str, jax.Array], mask: jax.Array, segments: Segments | None, cell: str = "gru"
    ) -> dict[str, jax.Array]:
        """Applies a layer to each input, all in one loop; an input's name starts the names of its parameters."""
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        check_multiple("features", self.features, len(directions))
        hidden, (rows, length) = self.features // len(directions), mask.shape
        check_segments(segments, length, rows)
        weights, from_input = [], []
        for name, x in inputs.items():
            for direction in directions:
                created = recurrent_weights(
                    self,
                    f"{name}_{direction}" if name else direction,
                    x.shape[-1],
                    hidden,
                    gates=CELLS[cell].gates,
                    kernel_init=self.kernel_init,
                    recurrent_kernel_init=self.recurrent_kernel_init,
                    bias_init=self.bias_init,
                    param_dtype=self.param_dtype,
                )
                in_time, *promoted = promote_dtype(jnp.moveaxis(x, 1, 0), *created, dtype=self.dtype)
                weights.append(RecurrentWeights(*promoted))
                in_time = jnp.where(mask.T[..., None], in_time, 0)
                projected = in_time @ weights[-1].input_kernel + weights[-1].input_bias[None, None]
                from_input.append(projected if direction == "forward" else projected[::-1])
        segments = one_per_row(rows, length) if segments is None else segments
        given = from_input, [w.state_kernel for w in weights], [w.state_bias for w in weights]
        states = CELLS[cell].states(
            *(at_least_float32(jnp.stack(arrays)) for arrays in given),
            self._of_each(segments.starts(), segments.ends(), len(inputs)),
            self._of_each(mask, mask, len(inputs)),
            custom_derivative=self.custom_derivative,
        )
        states = states.astype(from_input[0].dtype).reshape(len(inputs), len(directions), length, rows, hidden)
        outputs = [states[:, 0], states[:, 1, ::-1]] if self.bidirectional else [states[:, 0]]
        states = jnp.moveaxis(jnp.concatenate(outputs, axis=-1), 1, 2)
        return dict(zip(inputs, unstacked(jnp.where(mask[None, ..., None], states, 0)), strict=True))

    def _of_each(self, forward: jax.Array, backward: jax.Array, inputs: int) -> jax.Array:
        """Returns what holds at each position, `[B, T]`, as each loop over time meets it, `[G, T, B, 1]`."""
        directions = [forward.T, backward.T[::-1]] if self.bidirectional else [forward.T]
        return jnp.stack(directions * inputs)[..., None]


class BiGRU(_Recurrent):
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


class ModalityBiGRUs(_Recurrent):
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


class StackedRNN(_Recurrent):
    """Layers of a recurrent network over conversations, each of which reads the whole output of the one below.

    PyTorch's `nn.GRU` and `nn.LSTM` with several layers: dropout falls between the layers, not after the last. See
    `BiGRU` for positions where the mask is False and for derivatives.

    Attributes:
      features: width of the output, both directions together.
      bidirectional, kernel_init, recurrent_kernel_init, bias_init, dtype, param_dtype, custom_derivative: see `BiGRU`.
      cell: `gru` or `lstm`.
      num_layers: number of layers.
      dropout_rate: between the layers.

    Examples:
      >>> lstm, mask = StackedRNN(features=16, cell="lstm"), jnp.ones((2, 5), bool)
      >>> out, _ = lstm.init_with_output(jax.random.key(0), jnp.ones((2, 5, 8)), mask)
      >>> out.shape
      (2, 5, 16)
    """

    cell: str = "gru"
    num_layers: int = 2
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        *,
        segments: Segments | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Encodes conversations.

        Args:
          x: float `[B, T, D]`; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          `[B, T, features]`, zero where `mask` is False.

        Raises:
          TypeError, ValueError: for odd `features` of two directions, no layer, an unknown cell, or an argument of
            another kind or shape.
        """
        check_arrays(x=(x, "float [B, T, D]"), mask=(mask, "bool [B, T]"))
        check_at_least_one(num_layers=self.num_layers)
        if self.cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got '{self.cell}'")
        for i in range(self.num_layers):
            name = f"layer_{i}"
            x = self._apply({name: x}, mask, segments, self.cell)[name]
            if i < self.num_layers - 1:
                x = ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)
        return x
