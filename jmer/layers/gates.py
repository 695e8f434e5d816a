"""The two gates of LPGNet's dual-gated fusion, inherited from SDT (Ma et al., 2023, arXiv:2310.20494)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_array, check_arrays, check_choice, check_mapping, check_modalities
from jmer.layers.initializers import Dtype, Initializer, torch_uniform, with_fan_in
from jmer.layers.parallel_attention import FOUR_PATHS, Path
from jmer.layers.precision import softmax
from jmer.layers.stacking import stacked, unstacked

UNIMODAL_GATES = ("learned", "identity", "none")


class UnimodalGate(nn.Module):
    r"""A gate for each feature of a position, computed from all of its features, without bias (SDT, LPGNet).

    .. math:: \hat{x} = x \odot \sigma(x W)

    Attributes:
      kernel_init: initializer of W `[D, D]`.
      dtype: of the computation; None = that of the input and the parameter.
      param_dtype: of the parameter.

    Examples:
      >>> gate, x = UnimodalGate(), jnp.ones((2, 5, 8))
      >>> gate.init_with_output(jax.random.key(0), x)[0].shape
      (2, 5, 8)
    """

    kernel_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Gates each position.

        Args:
          x: float `[..., D]`.

        Returns:
          The shape of `x`.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        check_arrays(x=(x, "float [..., D]"))
        gate = _gate(self, x)
        return x.astype(gate.dtype) * nn.sigmoid(gate)


class GatedReduction(nn.Module):
    r"""Gates the context of each path, then maps the paths that end on a modality to one vector (SDT, LPGNet).

    .. math:: F_m = \left[\hat{H}_{s_1 \to m} \,\|\, \hat{H}_{s_2 \to m} \,\|\, \dots\right] W_m + b_m

    Attributes:
      paths: the (source, target) pairs, in the order of the parameters.
      gate: `learned` (a `UnimodalGate` for each path), `identity` (x ⊙ σ(x), as SDT freezes the gates on MELD) or
        `none`.
      kernel_init: initializer of the gates' and the reductions' kernels.
      bias_init: initializer of the reductions' biases.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> contexts = {path: jnp.ones((2, 5, 8)) for path in FOUR_PATHS}
      >>> reduced, _ = GatedReduction().init_with_output(jax.random.key(0), contexts)
      >>> {m: x.shape for m, x in reduced.items()}
      {'text': (2, 5, 8), 'audio': (2, 5, 8)}
    """

    paths: tuple[Path, ...] = FOUR_PATHS
    gate: str = "learned"
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, contexts: Mapping[Path, jax.Array]) -> dict[str, jax.Array]:
        """Reduces paths to modalities.

        Args:
          contexts: (source, target) -> float `[..., D]`, one shape for all paths, the same number for each target.

        Returns:
          Target -> `[..., D]`.

        Raises:
          TypeError, ValueError: for an unknown gate, contexts of other paths, targets on which unequal numbers of paths
            end, or an argument of another kind or shape.
        """
        ends = self._check(contexts)
        (x,) = promote_dtype(jnp.stack([contexts[path] for path in self.paths]), dtype=self.dtype)
        width, options = x.shape[-1], {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.gate == "learned":
            x = stacked(UnimodalGate(self.kernel_init, name="unimodal", **options))(x)
        elif self.gate == "identity":
            x = x * nn.sigmoid(x)
        gated = unstacked(x)
        concatenated = jnp.stack([jnp.concatenate([gated[i] for i in end], axis=-1) for end in ends.values()])
        reduction = nn.Dense(
            width,
            kernel_init=self.kernel_init,
            bias_init=with_fan_in(self.bias_init, concatenated.shape[-1]),
            name="reduction",
            **options,
        )
        return dict(zip(ends, unstacked(stacked(reduction)(concatenated)), strict=True))

    def _check(self, contexts: Mapping[Path, jax.Array]) -> dict[str, list[int]]:
        """Returns the numbers of the paths that end on each target."""
        check_choice("gate", self.gate, UNIMODAL_GATES)
        check_mapping("contexts", contexts, "float [..., D] of each path")
        check_modalities("contexts", contexts, self.paths)
        check_array("contexts", {path: contexts[path] for path in self.paths}, "modality -> float [..., D]", {})
        targets = dict.fromkeys(target for _, target in self.paths)
        ends = {target: [i for i, (_, end) in enumerate(self.paths) if end == target] for target in targets}
        if len({len(end) for end in ends.values()}) > 1:
            counts = ", ".join(f"{len(end)} to {target}" for target, end in ends.items())
            raise ValueError(f"paths: expected the same number to each target, got {counts}")
        return ends


class MultimodalGate(nn.Module):
    r"""Mixes modalities with weights that sum to 1 for every feature (SDT, LPGNet).

    .. math:: \sum_m \mathrm{softmax}_m(x_m W) \odot x_m

    One matrix W serves all modalities, without bias. With two modalities the first one's weight is σ((x_1 − x_2) W).

    Attributes:
      kernel_init: initializer of W `[D, D]`.
      dtype: of the computation; None = that of the input and the parameter.
      param_dtype: of the parameter.

    Examples:
      >>> features = {"text": jnp.ones((2, 5, 8)), "audio": jnp.zeros((2, 5, 8))}
      >>> (fused, weights), _ = MultimodalGate().init_with_output(jax.random.key(0), features)
      >>> fused.shape, bool(jnp.allclose(weights["text"] + weights["audio"], 1))
      ((2, 5, 8), True)
    """

    kernel_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: Mapping[str, jax.Array], available: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Fuses the modalities that each position has.

        Args:
          features: modality -> float `[..., D]`, one width for all.
          available: modality -> bool `[...]`, False where a position lacks that modality; None = nowhere.

        Returns:
          The fused features `[..., D]`, zero where there is no modality, and the weights, modality -> `[..., D]`.

        Raises:
          TypeError, ValueError: for masks of other modalities, or an argument of another kind or shape.
        """
        check_arrays(
            features=(features, "modality -> float [..., D]"), available=(available, "modality -> bool [...]?")
        )
        (x,) = promote_dtype(jnp.stack(list(features.values())), dtype=self.dtype)
        if available is None:
            present = jnp.ones((*x.shape[:-1], 1), bool)
        else:
            check_modalities("available", available, features)
            present = jnp.stack([available[m] for m in features])[..., None]
        x = jnp.where(present, x, 0)
        scores = _gate(self, x)
        weights = softmax(scores, axis=0, where=jnp.broadcast_to(present, scores.shape))
        return jnp.sum(weights * x, axis=0), dict(zip(features, unstacked(weights), strict=True))


def _gate(module: UnimodalGate | MultimodalGate, x: jax.Array) -> jax.Array:
    """Returns x W, with W the gate's parameter."""
    return nn.Dense(
        x.shape[-1],
        use_bias=False,
        kernel_init=module.kernel_init,
        dtype=module.dtype,
        param_dtype=module.param_dtype,
        name="gate",
    )(x)
