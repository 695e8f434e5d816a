"""The two gates of LPGNet's dual-gated fusion, inherited from SDT (Ma et al., 2023, arXiv:2310.20494)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.initializers import kernel_and_bias, torch_uniform
from jmer.layers.parallel_attention import FOUR_PATHS, Path
from jmer.layers.stacking import stacked, unstacked

UNIMODAL_GATES = ("learned", "identity", "none")


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


class GatedReduction(nn.Module):
    """Gates what each path brought, then makes one vector of the paths that end on a modality: [Ĥ ‖ …] W_m + b_m.

    Attributes:
      paths: the (source, target) pairs, in the order of the parameters.
      gate: `learned` (a `UnimodalGate` for each path), `identity` (x ⊙ σ(x), as SDT freezes the gates on MELD) or
        `none`.
      initialization: see `jmer.layers.initializers`.
    """

    paths: tuple[Path, ...] = FOUR_PATHS
    gate: str = "learned"
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, contexts: Mapping[Path, jax.Array]) -> dict[str, jax.Array]:
        """Reduces paths to modalities.

        Args:
          contexts: (source, target) -> float32 `[..., D]`, one shape for all paths, as many for each target.

        Returns:
          Target -> float32 `[..., D]`.

        Raises:
          ValueError: for an unknown gate, a path without its context, or targets on which unequal numbers of paths end.
        """
        if self.gate not in UNIMODAL_GATES:
            raise ValueError(f"unimodal_gate must be one of {', '.join(UNIMODAL_GATES)}, not '{self.gate}'")
        if missing := [path for path in self.paths if path not in contexts]:
            raise ValueError(f"there is no context for {missing}, only for {list(contexts)}")
        targets = list(dict.fromkeys(target for _, target in self.paths))
        ends = [[i for i, (_, end) in enumerate(self.paths) if end == target] for target in targets]
        if len(set(map(len, ends))) > 1:
            raise ValueError(f"as many paths must end on each modality, not {dict(zip(targets, ends, strict=True))}")
        x = jnp.stack([contexts[path] for path in self.paths])
        width = x.shape[-1]
        if self.gate == "learned":
            kernel_init, _ = kernel_and_bias(self.initialization, width)
            x = stacked(UnimodalGate)(kernel_init, name="unimodal")(x)
        elif self.gate == "identity":
            x = x * nn.sigmoid(x)
        gated = unstacked(x)
        together = jnp.stack([jnp.concatenate([gated[i] for i in end], axis=-1) for end in ends])
        kernel_init, bias_init = kernel_and_bias(self.initialization, together.shape[-1])
        reduction = stacked(nn.Dense)(width, kernel_init=kernel_init, bias_init=bias_init, name="reduction")
        return dict(zip(targets, unstacked(reduction(together)), strict=True))


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
        return jnp.sum(weights * x, axis=0), dict(zip(features, unstacked(weights), strict=True))
