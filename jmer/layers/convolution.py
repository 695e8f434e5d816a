"""Convolution along conversations."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_odd
from jmer.layers.initializers import Dtype, Initializer, torch_uniform
from jmer.segments import Segments, check_segments


class SegmentConvolution(nn.Module):
    r"""A 1-D convolution without bias along each conversation, zero beyond its borders (step 1 of LPGNet's LPIA).

    .. math:: y_t = \sum_{k=1}^{w} x_{t + k - (w + 1) / 2} W_k

    It has no mask: what should not reach its neighbours must be zero.

    Attributes:
      features: `d`, width of the output.
      kernel_size: `w`, positions that an output depends on; odd.
      kernel_init: of the kernel `[kernel_size, D, features]`.
      dtype: of the computation; None = that of the input and the kernel.
      param_dtype: of the kernel.

    Examples:
      >>> layer, x = SegmentConvolution(features=16, kernel_size=3), jnp.ones((2, 5, 8))
      >>> layer.init_with_output(jax.random.key(0), x)[0].shape
      (2, 5, 16)
    """

    features: int
    kernel_size: int
    kernel_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, segments: Segments | None = None) -> jax.Array:
        """Convolves rows.

        Args:
          x: float `[B, T, D]`.
          segments: the conversations of packed rows, each of which is convolved by itself; None = one per row.

        Returns:
          `[B, T, features]`.

        Raises:
          TypeError, ValueError: for an even kernel, or an argument of another kind or shape.
        """
        check_odd("kernel_size", self.kernel_size)
        check_arrays(x=(x, "float [B, T, D]"))
        rows, length, width = x.shape
        check_segments(segments, length, rows)
        kernel = self.param("kernel", self.kernel_init, (self.kernel_size, width, self.features), self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        if segments is None or segments.count == 1:
            # Without borders XLA's own convolution does, which holds no products of every tap: frames are many.
            return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        # One product for all taps; an output then adds up the products of its own conversation's positions.
        products = jnp.einsum("btd,kde->btke", x, kernel)
        half = self.kernel_size // 2
        products = jnp.pad(products, ((0, 0), (half, half), (0, 0), (0, 0)))
        neighbours = jnp.pad(segments.ids, ((0, 0), (half, half)), constant_values=-1)
        total = jnp.zeros((), products.dtype)
        for tap in range(self.kernel_size):
            same = neighbours[:, tap : tap + length] == segments.ids
            total += jnp.where(same[..., None], products[:, tap : tap + length, tap], 0)
        return total
