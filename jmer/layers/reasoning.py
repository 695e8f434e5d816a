"""The cognitive reasoning of DialogueCRN (Hu et al., 2021)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays
from jmer.layers.initializers import Dtype, Initializer, torch_uniform
from jmer.layers.lstm import lstm_gates, lstm_next
from jmer.layers.precision import softmax
from jmer.layers.recurrent import CELLS, RecurrentWeights, recurrent_weights
from jmer.segments import Segments, check_segments


class CognitiveReasoning(nn.Module):
    r"""Each utterance asks its conversation several times, an LSTM turning what it read into the next question.

    With the bank of a conversation's utterances U and the query :math:`q^0` of an utterance, for k = 1 … K:

    .. math::
        s^k = \mathrm{LSTM}(q^{k-1}), \quad \alpha^k = \mathrm{softmax}_j\left(s^k \cdot U_j\right), \quad
        q^k = \left[s^k \,\|\, \textstyle\sum_j \alpha_j^k U_j\right]

    (DialogueCRN, Hu et al., 2021). The utterances of a conversation reason side by side.

    Attributes:
      steps: K; 0 = the query as it is, without parameters.
      kernel_init: initializer of the LSTM's input kernel `[2D, 4D]`.
      recurrent_kernel_init: initializer of its state kernel `[D, 4D]`.
      bias_init: initializer of its biases `[4D]`.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, bank, query = CognitiveReasoning(steps=2), jnp.ones((2, 5, 8)), jnp.ones((2, 5, 16))
      >>> layer.init_with_output(jax.random.key(0), query, bank, jnp.ones((2, 5), bool))[0].shape
      (2, 5, 16)
    """

    steps: int
    kernel_init: Initializer = torch_uniform
    recurrent_kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, query: jax.Array, bank: jax.Array, mask: jax.Array, *, segments: Segments | None = None
    ) -> jax.Array:
        """Reasons for each utterance.

        Args:
          query: float `[B, T, 2D]`, the first questions; values where `mask` is False do not matter.
          bank: float `[B, T, D]`, what is read; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.

        Returns:
          `[B, T, 2D]`; values where `mask` is False mean nothing.

        Raises:
          TypeError, ValueError: for a negative number of steps, a query of another width, or an argument of another
            kind or shape.
        """
        sizes = check_arrays(bank=(bank, "float [B, T, D]"), mask=(mask, "bool [B, T]"))
        check_arrays(query=(query, f"float [{sizes['B']}, {sizes['T']}, {2 * sizes['D']}]"))
        check_segments(segments, sizes["T"], sizes["B"])
        if self.steps < 0:
            raise ValueError(f"steps: expected at least 0, got {self.steps}")
        query, bank = (jnp.where(mask[..., None], x, 0) for x in (query, bank))
        if not self.steps:
            return query
        width = sizes["D"]
        weights = recurrent_weights(
            self,
            "lstm",
            2 * width,
            width,
            gates=CELLS["lstm"].gates,
            kernel_init=self.kernel_init,
            recurrent_kernel_init=self.recurrent_kernel_init,
            bias_init=self.bias_init,
            param_dtype=self.param_dtype,
        )
        query, bank, *promoted = promote_dtype(query, bank, *weights, dtype=self.dtype)
        weights = RecurrentWeights(*promoted)
        visible = mask[:, None, :]
        if segments is not None and segments.count > 1:
            visible = visible & segments.same_segment()
        visible = jnp.broadcast_to(visible, (sizes["B"], sizes["T"], sizes["T"]))
        bias = (weights.input_bias + weights.state_bias)[None, None]
        # From the second step on, the question's first half is the state itself: one product serves both kernels.
        both_kernels = jnp.concatenate(
            [weights.input_kernel[:width] + weights.state_kernel, weights.input_kernel[width:]]
        )
        linear, cell = query @ weights.input_kernel + bias, jnp.zeros_like(bank)
        for step in range(self.steps):
            if step:
                linear = query @ both_kernels + bias
            state, cell = lstm_next(lstm_gates(linear), cell)
            attention = softmax(jnp.einsum("btd,bsd->bts", state, bank), where=visible)
            query = jnp.concatenate([state, attention @ bank], axis=-1)
        return query
