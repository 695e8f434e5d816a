"""Batch normalization over the positions that are real, on one device or many."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class MaskedBatchNorm(nn.Module):
    """Normalizes each feature over the real positions of a batch, and over all devices of a mapped axis.

    As in PyTorch, the running variance is unbiased, the variance that normalizes a training batch is not. Sums and
    counts are added over devices before any division, so that unequal masks and a device without a real position give
    the statistics of the whole batch. Two real positions are the least that has a variance: with fewer, training uses
    the running statistics and leaves them as they are.

    Attributes:
      momentum: share of the old running statistics that an update keeps (PyTorch's momentum is 1 minus it).
      epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, *, train: bool, axis: str | tuple[str, ...] | None = None
    ) -> jax.Array:
        """Normalizes; in training also updates the collection `batch_stats`, which must then be mutable.

        Args:
          x: float32 `[..., D]`; what stands where `mask` is False does not matter.
          mask: bool `[...]`, True = real.
          train: True = statistics of this batch, False = running statistics.
          axis: mapped axis name or names whose devices hold the rest of the batch, None = unmapped.

        Returns:
          float32 `[..., D]`, zero where `mask` is False.
        """
        width = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
        running_variance = self.variable("batch_stats", "var", jnp.ones, (width,))
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        real = mask.reshape(-1, 1)
        rows = jnp.where(real, x.reshape(-1, width), 0)
        mean, variance = running_mean.value, running_variance.value
        if train and not self.is_initializing():
            batch_mean, batch_variance, count = _statistics(rows, real, axis)
            enough = count > 1

            def updated(old: jax.Array, new: jax.Array) -> jax.Array:
                return jnp.where(enough, self.momentum * old + (1 - self.momentum) * new, old)

            running_mean.value = updated(mean, batch_mean)
            running_variance.value = updated(variance, batch_variance * count / jnp.maximum(count - 1, 1))
            mean, variance = jnp.where(enough, batch_mean, mean), jnp.where(enough, batch_variance, variance)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        rows = (rows - mean[None]) * factor[None] + bias[None]
        return jnp.where(real, rows, 0).reshape(x.shape)


def _statistics(
    rows: jax.Array, real: jax.Array, axis: str | tuple[str, ...] | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean `[D]`, biased variance `[D]` and number of the real rows of all devices."""

    def total(x: jax.Array) -> jax.Array:
        return x if axis is None else jax.lax.psum(x, axis)

    count = total(jnp.sum(real.astype(rows.dtype)))
    divisor = jnp.maximum(count, 1)
    mean = total(jnp.sum(rows, axis=0)) / divisor
    # A second pass over deviations: E[x²] − E[x]² would lose the variance of features with a large mean.
    deviations = jnp.where(real, rows - mean[None], 0)
    return mean, total(jnp.sum(jnp.square(deviations), axis=0)) / divisor, count
