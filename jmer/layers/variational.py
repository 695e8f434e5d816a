"""Gaussian posteriors of utterance features (LFVD Eq. 12)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.dropout import row_keys
from jmer.layers.gaussian import Gaussian
from jmer.layers.initializers import dense

PARAMETRIZATIONS = ("softplus_std", "log_std", "log_var")
_LOG_BOUND = 5.0


class GaussianHead(nn.Module):
    """Maps a feature vector to a diagonal Gaussian through one ReLU layer of the input's width (LFVD Eq. 12).

    Attributes:
      width: `d_z`, dimensions of the Gaussian.
      parametrization: what the network's second half means: `softplus_std` (softplus gives the standard deviation),
        `log_std` or `log_var` (clipped to [-5, 5]).
      initialization: see `jmer.layers.initializers`.
    """

    width: int
    parametrization: str = "softplus_std"
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, x: jax.Array) -> Gaussian:
        """Maps `x` `[..., D]` to a Gaussian of `[..., width]`.

        Raises:
          ValueError: for an unknown parametrization.
        """
        if self.parametrization not in PARAMETRIZATIONS:
            raise ValueError(f"sigma_param must be one of {', '.join(PARAMETRIZATIONS)}, not '{self.parametrization}'")
        hidden = nn.relu(dense(x.shape[-1], x.shape[-1], scheme=self.initialization, name="hidden")(x))
        both = dense(2 * self.width, x.shape[-1], scheme=self.initialization, name="output")(hidden)
        mean, raw = jnp.split(both, 2, axis=-1)
        if self.parametrization == "softplus_std":
            return Gaussian(mean, nn.softplus(raw) + 1e-7)
        log = jnp.clip(raw, -_LOG_BOUND, _LOG_BOUND)
        return Gaussian(mean, jnp.exp(log if self.parametrization == "log_std" else log / 2))


def sample(posterior: Gaussian, key: jax.Array, row_ids: jax.Array | None = None) -> jax.Array:
    """Draws `mean + scale * ε`, keyed by row.

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
