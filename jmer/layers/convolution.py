"""Convolution along conversations that share a row."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.segments import Segments


class SegmentConvolution(nn.Module):
    """A 1-D convolution without bias along each conversation, beyond whose borders all is zero (LPGNet's LPIA, step 1).

    Attributes:
      features: `d`, the width of the output.
      width: positions that it sees; odd.
      kernel_init: of the kernel `[width, D, d]`.
    """

    features: int
    width: int
    kernel_init: Callable

    @nn.compact
    def __call__(self, x: jax.Array, segments: Segments) -> jax.Array:
        """Returns float32 `[B, T, d]`.

        Args:
          x: float32 `[B, T, D]`.
          segments: the conversations of each row; with one each, their length does not matter.
        """
        kernel = self.param("kernel", self.kernel_init, (self.width, x.shape[-1], self.features))
        if segments.count == 1:
            # Without borders XLA's own convolution does, which holds no products of every tap: frames are many.
            return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        # What each position gives to each of its neighbours, in one product; they add up what comes from their own.
        given = jnp.einsum("btd,kde->btke", x, kernel)
        half, length = self.width // 2, x.shape[1]
        given = jnp.pad(given, ((0, 0), (half, half), (0, 0), (0, 0)))
        giver = jnp.pad(segments.ids, ((0, 0), (half, half)), constant_values=-1)
        total = 0
        for tap in range(self.width):
            own = giver[:, tap : tap + length] == segments.ids
            total += jnp.where(own[..., None], given[:, tap : tap + length, tap], 0)
        return total
