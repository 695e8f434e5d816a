"""Attention within and across modalities, all paths at once (LPGNet's local-parallel interaction, steps 2 and 3)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.attention import masked_attention
from jmer.layers.initializers import torch_uniform, torch_uniform_bias

Path = tuple[str, str]

FOUR_PATHS: tuple[Path, ...] = (("text", "text"), ("audio", "audio"), ("audio", "text"), ("text", "audio"))
PROJECTIONS = ("per_path", "shared", "identity")


class FourWayParallelAttention(nn.Module):
    """Masked dot-product attention from source to target modalities, computed as one batched attention.

    On a path (source, target) the target's positions ask and the source's answer: with X the features,
    C = softmax(X_target W_Q (X_source W_K)ᵀ / √d) X_source W_V over the source's real positions, with d the width of
    a head. By default there are the four paths of LPGNet: within text, within audio, audio to text and text to audio.

    Attributes:
      heads: number of attention heads; divides the width.
      projections: `per_path` has W_Q, W_K, W_V for every path, `shared` for every modality, `identity` has none.
      output_projection: True = a linear layer with bias after each path's attention.
      paths: the (source, target) pairs.
      kernel_init: initializer of each matrix `[D, D]`.
    """

    heads: int = 1
    projections: str = "per_path"
    output_projection: bool = False
    paths: tuple[Path, ...] = FOUR_PATHS
    kernel_init: Callable = torch_uniform

    @nn.compact
    def __call__(self, features: Mapping[str, jax.Array], masks: Mapping[str, jax.Array]) -> dict[Path, jax.Array]:
        """Returns the context of every path, on the target's positions.

        Args:
          features: modality -> float32 `[..., T_m, D]`; lengths may differ between modalities, the width may not.
          masks: modality -> bool `[..., T_m]`, True = real; what stands elsewhere does not matter.

        Returns:
          (source, target) -> float32 `[..., T_target, D]`; zero where the target is padding, and (up to the output
          projection's bias) where the source has no real position.

        Raises:
          ValueError: for unknown projections, a path with a missing modality, or heads that do not divide the width.
        """
        names = sorted({m for path in self.paths for m in path})
        self._check(names, features)
        lengths = {m: features[m].shape[-2] for m in names}
        # Shorter modalities are padded to the longest, so that all paths are one product.
        longest = max(lengths.values())
        x = jnp.stack([_pad(jnp.where(masks[m][..., None], features[m], 0), longest, axis=-2) for m in names])
        mask = jnp.stack([_pad(masks[m], longest, axis=-1) for m in names])
        sources, targets = (jnp.array([names.index(path[end]) for path in self.paths]) for end in (0, 1))
        query = self._project(x, targets, "query")
        key, value = self._project(x, sources, "key"), self._project(x, sources, "value")
        context = masked_attention(*map(self._split_heads, (query, key, value)), mask[sources])
        context = context.reshape(query.shape)
        if self.output_projection:
            context = self._linear(context, "output") + self._bias(context)
        context = jnp.where(mask[targets][..., None], context, 0)
        return {path: context[i, ..., : lengths[path[1]], :] for i, path in enumerate(self.paths)}

    def _project(self, x: jax.Array, chosen: jax.Array, name: str) -> jax.Array:
        """From `[M, ..., T, D]` per modality to `[P, ..., T, D]` per path."""
        if self.projections == "per_path":
            return self._linear(x[chosen], name)
        return (self._linear(x, name) if self.projections == "shared" else x)[chosen]

    def _linear(self, x: jax.Array, name: str) -> jax.Array:
        """Multiplies each entry of the first axis by a matrix of its own."""
        kernel = self.param(name, _each(self.kernel_init), (x.shape[0], x.shape[-1], x.shape[-1]))
        return jnp.einsum("p...d,pde->p...e", x, kernel)

    def _bias(self, x: jax.Array) -> jax.Array:
        bias = self.param("output_bias", torch_uniform_bias(x.shape[-1]), (x.shape[0], x.shape[-1]))
        return bias.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])

    def _split_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def _check(self, names: list[str], features: Mapping[str, jax.Array]) -> None:
        if self.projections not in PROJECTIONS:
            raise ValueError(f"unknown projections '{self.projections}'; choose one of {', '.join(PROJECTIONS)}")
        if missing := [m for m in names if m not in features]:
            raise ValueError(f"a path needs {', '.join(missing)}, but the features are of {', '.join(features)}")
        widths = {m: features[m].shape[-1] for m in names}
        if len(set(widths.values())) > 1:
            raise ValueError(f"all modalities must have one width, but they have {widths}")
        if widths[names[0]] % self.heads:
            raise ValueError(f"heads must divide the width, but {self.heads} does not divide {widths[names[0]]}")


def _pad(x: jax.Array, length: int, axis: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, widths)


def _each(init: Callable) -> Callable:
    """The initializer that draws each matrix of a stack on its own: the stack is no part of the fan-in."""

    def stack(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.vmap(lambda k: init(k, shape[1:]))(jax.random.split(key, shape[0]))

    return stack
