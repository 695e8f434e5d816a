"""The two gates of LPGNet's dual-gated fusion, inherited from SDT (Ma et al., 2023, arXiv:2310.20494)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.initializers import torch_uniform


class UnimodalGate(nn.Module):
    """Lets each feature through as far as all features of its position say: x ⊙ σ(x W), without bias.

    Attributes:
      kernel_init: initializer of W `[D, D]`.
    """

    kernel_init: Callable = torch_uniform

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the gated features, shape of `x` `[..., D]`."""
        gate = nn.Dense(x.shape[-1], use_bias=False, kernel_init=self.kernel_init, name="gate")(x)
        return x * nn.sigmoid(gate)


class MultimodalGate(nn.Module):
    """Mixes modalities with weights that sum to 1 for every feature: Σ_m softmax_m(x_m W) ⊙ x_m.

    One matrix W serves all modalities, without bias. With two modalities the first one's weight is σ((x_1 − x_2) W).

    Attributes:
      kernel_init: initializer of W `[D, D]`.
    """

    kernel_init: Callable = torch_uniform

    @nn.compact
    def __call__(
        self, features: Mapping[str, jax.Array], available: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Fuses the modalities that each position has.

        Args:
          features: modality -> float32 `[..., D]`, one width for all.
          available: modality -> bool `[...]`, False where a position lacks that modality; None = nowhere.

        Returns:
          The fused features `[..., D]`, zero where there is no modality, and the weights, modality -> `[..., D]`.
        """
        x = jnp.stack(list(features.values()))
        if available is None:
            present = jnp.ones((*x.shape[:-1], 1), bool)
        else:
            present = jnp.stack([available[m] for m in features])[..., None]
        x = jnp.where(present, x, 0)
        scores = nn.Dense(x.shape[-1], use_bias=False, kernel_init=self.kernel_init, name="gate")(x)
        weights = nn.softmax(scores, axis=0, where=jnp.broadcast_to(present, scores.shape))
        return jnp.sum(weights * x, axis=0), dict(zip(features, weights, strict=True))
