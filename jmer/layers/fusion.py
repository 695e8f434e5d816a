"""Fusion of modalities weighted by how far their Gaussians are apart (LFVD Eqs. 14-17)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jmer.layers.gaussian import Gaussian, symmetric_kl

WEIGHTINGS = ("sigmoid", "two_sigmoid_minus_one", "one_minus", "ones")


def kl_fusion_weights(
    posteriors: Mapping[str, Gaussian],
    *,
    dominant: str = "text",
    weighting: str = "sigmoid",
    reduction: str = "sum",
) -> dict[str, jax.Array]:
    r"""Weighs each auxiliary modality by its divergence from the dominant one (LFVD Eqs. 14-16).

    .. math:: w_m = σ(½ [KL(q_l \| q_m) + KL(q_m \| q_l)]) ∈ [½, 1)

    As printed, a modality that disagrees more with the dominant one counts more.

    Args:
      posteriors: modality -> Gaussian of `[..., D]`.
      dominant: the modality that the others are compared with.
      weighting: `sigmoid` (as printed), `two_sigmoid_minus_one` (stretched to [0, 1)), `one_minus` (1 - sigmoid, so
        that agreement counts) or `ones` (plain addition).
      reduction: `sum` of the divergence over its dimensions, or `mean`, which saturates less.

    Returns:
      Modality -> `[...]`, without the dominant one.

    Raises:
      ValueError: for an unknown dominant modality, weighting or reduction.
    """
    if dominant not in posteriors:
        raise ValueError(f"the dominant modality '{dominant}' has no posterior, only {', '.join(posteriors)}")
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, not '{weighting}'")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be sum or mean, not '{reduction}'")
    weights = {}
    for modality, posterior in posteriors.items():
        if modality == dominant:
            continue
        divergence = symmetric_kl(posteriors[dominant], posterior)
        if reduction == "mean":
            divergence = divergence / posterior.mean.shape[-1]
        sigmoid = jax.nn.sigmoid(divergence)
        weights[modality] = {
            "sigmoid": sigmoid,
            "two_sigmoid_minus_one": 2 * sigmoid - 1,
            "one_minus": 1 - sigmoid,
            "ones": jnp.ones_like(sigmoid),
        }[weighting]
    return weights


def kl_weighted_fusion(
    features: Mapping[str, jax.Array], weights: Mapping[str, jax.Array], *, dominant: str = "text"
) -> jax.Array:
    """Adds the auxiliary modalities, weighted, to the dominant one (LFVD Eq. 17).

    Args:
      features: modality -> `[..., D]`.
      weights: auxiliary modality -> `[...]`.
      dominant: the modality of weight 1.

    Returns:
      `[..., D]`.

    Raises:
      ValueError: if a modality other than the dominant one has no weight.
    """
    missing = [modality for modality in features if modality != dominant and modality not in weights]
    if missing:
        raise ValueError(f"no weight for {', '.join(missing)}: give one for each modality but '{dominant}'")
    weighted = (x if m == dominant else weights[m][..., None] * x for m, x in features.items())
    return sum(weighted)
