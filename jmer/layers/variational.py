"""Gaussian posteriors of utterance features (LFVD's Eq. 12)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.checks import check_arrays, check_at_least_one, check_choice
from jmer.layers.dropout import row_keys
from jmer.layers.gaussian import Gaussian
from jmer.layers.initializers import Dtype, Initializer, dense, layer_options, torch_uniform
from jmer.layers.precision import at_least_float32

PARAMETRIZATIONS = ("softplus_std", "log_std", "log_var")
_LOG_BOUND = 5.0


class GaussianHead(nn.Module):
    r"""Maps features to a diagonal Gaussian (LFVD's Eq. 12).

    .. math:: q(z \,|\, x) = \mathcal{N}\left(\mu(x), \mathrm{diag}(s(x)^2)\right)

    Both come from one network with one ReLU layer of the input's width.

    Attributes:
      features: `d_z`, dimensions of the Gaussian.
      parametrization: what the network's second half means: `softplus_std` (softplus gives the standard deviation),
        `log_std` or `log_var` (clipped to [-5, 5]).
      kernel_init, bias_init: initializers of both layers.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> head, x = GaussianHead(features=4), jnp.ones((2, 5, 8))
      >>> posterior, _ = head.init_with_output(jax.random.key(0), x)
      >>> posterior.mean.shape, bool((posterior.scale > 0).all())
      ((2, 5, 4), True)
    """

    features: int
    parametrization: str = "softplus_std"
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> Gaussian:
        """Maps each vector to a Gaussian.

        Args:
          x: float `[..., D]`.

        Returns:
          A Gaussian of `[..., features]`.

        Raises:
          TypeError, ValueError: for an unknown parametrization, a size below 1, or an `x` of another kind or shape.
        """
        check_arrays(x=(x, "float [..., D]"))
        check_at_least_one(features=self.features)
        check_choice("parametrization", self.parametrization, PARAMETRIZATIONS)
        width, options = x.shape[-1], layer_options(self)
        hidden = nn.relu(dense(width, width, name="hidden", **options)(x))
        mean, raw = jnp.split(dense(2 * self.features, width, name="output", **options)(hidden), 2, axis=-1)
        return Gaussian(mean, self._scale(at_least_float32(raw)).astype(mean.dtype))

    def _scale(self, raw: jax.Array) -> jax.Array:
        if self.parametrization == "softplus_std":
            return nn.softplus(raw) + 1e-7
        log = jnp.clip(raw, -_LOG_BOUND, _LOG_BOUND)
        return jnp.exp(log if self.parametrization == "log_std" else log / 2)


def sample(posterior: Gaussian, key: jax.Array, row_ids: jax.Array | None = None) -> jax.Array:
    r"""Draws reparametrized samples, keyed by row.

    .. math:: z = \mu + s \odot \epsilon, \quad \epsilon \sim \mathcal{N}(0, I)

    Args:
      posterior: Gaussian of `[B, ..., D]`.
      key: random key, the same on every device.
      row_ids: int32 `[B]`, see `row_keys`; None = 0 to `B` - 1.

    Returns:
      `[B, ..., D]`.
    """
    keys = row_keys(key, row_ids, posterior.mean.shape[0])
    noise = jax.vmap(lambda key: jax.random.normal(key, posterior.mean.shape[1:], posterior.mean.dtype))(keys)
    return posterior.mean + posterior.scale * noise
