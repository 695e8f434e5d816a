"""The exchange between two branches of a network by bilinear attention (LSDGNN, 2025)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays
from jmer.layers.initializers import Dtype, Initializer
from jmer.layers.precision import softmax
from jmer.segments import Segments, check_segments


class BilinearExchange(nn.Module):
    r"""Each of two branches reads the other one's states, layer by layer, by bilinear attention (LSDGNN).

    .. math::
        \tilde{S} = \mathrm{softmax}\left(S U_1 G^\top\right) G, \quad
        \tilde{G} = \mathrm{softmax}\left(G U_2 S^\top\right) S

    An utterance reads the whole conversation; all layers have the same two kernels.

    Attributes:
      kernel_init: initializer of U₁ and U₂, `[H, H]` each.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layer, states = BilinearExchange(), jnp.ones((2, 4, 1, 3, 8))
      >>> layer.init_with_output(jax.random.key(0), states, jnp.ones((1, 3), bool))[0].shape
      (2, 4, 1, 3, 8)
    """

    # Gain √2, as its authors start them.
    kernel_init: Initializer = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, states: jax.Array, mask: jax.Array, *, segments: Segments | None = None) -> jax.Array:
        """Exchanges states.

        Args:
          states: float `[2, L, B, T, H]`, both branches' in `L` layers; values where `mask` is False do not matter.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.

        Returns:
          The shape of `states`: what the first branch read of the second, then the other way round; zero where `mask`
          is False.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        check_arrays(states=(states, "float [2, L, B, T, H]"), mask=(mask, "bool [B, T]"))
        check_segments(segments, mask.shape[1], len(mask))
        width = states.shape[-1]
        kernels = [
            self.param(f"{name}_kernel", self.kernel_init, (width, width), self.param_dtype)
            for name in ("first", "second")
        ]
        states, *kernels = promote_dtype(jnp.where(mask[..., None], states, 0), *kernels, dtype=self.dtype)
        visible = mask[:, :, None] & mask[:, None, :]
        if segments is not None:
            visible &= segments.same_segment()
        others = states[::-1]
        scores = jnp.einsum("xlbtd,xde,xlbse->xlbts", states, jnp.stack(kernels), others)
        return softmax(scores, where=jnp.broadcast_to(visible, scores.shape)) @ others
