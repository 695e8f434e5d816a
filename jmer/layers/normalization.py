"""Batch normalization over the real positions of a batch, on one device or several."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.checks import check_arrays
from jmer.layers.initializers import Dtype
from jmer.layers.precision import at_least_float32

AxisName = str | tuple[str, ...] | None


class MaskedBatchNorm(nn.Module):
    r"""Batch normalization over real positions, and over all devices of a mapped axis.

    .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \, \gamma + \beta

    As in PyTorch, the running variance is unbiased, the variance that normalizes a training batch is not. Sums and
    counts are added over devices before any division, so that unequal masks and a device without a real position give
    the statistics of the whole batch. Two real positions are the least that has a variance: with fewer, training uses
    the running statistics and leaves them as they are. Statistics are computed in float32 at least.

    Attributes:
      momentum: share of the old running statistics that an update keeps (PyTorch's momentum is 1 minus it).
      epsilon: ε, added to the variance.
      dtype: of the output; None = that of the input and the parameters.
      param_dtype: of the parameters γ (`scale`) and β (`bias`).

    Examples:
      >>> norm, x, mask = MaskedBatchNorm(), jnp.array([[1.0], [3.0], [100.0]]), jnp.array([True, True, False])
      >>> variables = norm.init(jax.random.key(0), x, mask)
      >>> y, updates = norm.apply(variables, x, mask, train=True, mutable=["batch_stats"])
      >>> print(y[:, 0].round(2))
      [-1.  1.  0.]
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool = False, axis_name: AxisName = None) -> jax.Array:
        """Normalizes; in training also updates the collection `batch_stats`, which must then be mutable.

        Args:
          x: float `[..., D]`; values where `mask` is False do not matter.
          mask: bool `[...]`, True = real.
          train: True = statistics of this batch, False = running statistics.
          axis_name: name or names of the mapped axes over whose devices the batch is divided; None = not mapped.

        Returns:
          `[..., D]`, zero where `mask` is False.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        check_arrays(x=(x, "float [..., D]"), mask=(mask, "bool [...]"))
        width = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
        running_variance = self.variable("batch_stats", "var", jnp.ones, (width,))
        scale = self.param("scale", nn.initializers.ones, (width,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (width,), self.param_dtype)
        dtype = self.dtype or jnp.result_type(x, scale, bias)
        x = at_least_float32(x)
        real = mask.reshape(-1, 1)
        rows = jnp.where(real, x.reshape(-1, width), 0)
        mean, variance = running_mean.value, running_variance.value
        if train and not self.is_initializing():
            batch_mean, batch_variance, count = _batch_moments(rows, real, axis_name)
            enough = count > 1

            def updated(old: jax.Array, new: jax.Array) -> jax.Array:
                return jnp.where(enough, self.momentum * old + (1 - self.momentum) * new, old)

            running_mean.value = updated(mean, batch_mean)
            running_variance.value = updated(variance, batch_variance * count / jnp.maximum(count - 1, 1))
            mean, variance = jnp.where(enough, batch_mean, mean), jnp.where(enough, batch_variance, variance)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        rows = (rows - mean[None]) * factor[None] + bias[None]
        return jnp.where(real, rows, 0).reshape(x.shape).astype(dtype)


def _batch_moments(rows: jax.Array, real: jax.Array, axis_name: AxisName) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the mean `[D]`, biased variance `[D]` and number of the real rows of all devices."""

    def total(x: jax.Array) -> jax.Array:
        return x if axis_name is None else jax.lax.psum(x, axis_name)

    count = total(jnp.sum(real.astype(rows.dtype)))
    divisor = jnp.maximum(count, 1)
    mean = total(jnp.sum(rows, axis=0)) / divisor
    # A second pass over deviations: E[x²] − E[x]² would lose the variance of features with a large mean.
    deviations = jnp.where(real, rows - mean[None], 0)
    return mean, total(jnp.sum(jnp.square(deviations), axis=0)) / divisor, count
