"""Fusion of modalities weighted by the divergence of their Gaussians (LFVD's Eqs. 14-17)."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jmer.checks import check_array, check_arrays, check_choice, check_modalities
from jmer.layers.gaussian import Gaussian, check_posteriors, symmetric_kl

WEIGHTINGS = ("sigmoid", "two_sigmoid_minus_one", "one_minus", "ones")
REDUCTIONS = ("sum", "mean")


def kl_fusion_weights(
    posteriors: Mapping[str, Gaussian],
    *,
    dominant: str = "text",
    weighting: str = "sigmoid",
    reduction: str = "sum",
) -> dict[str, jax.Array]:
    r"""Returns a weight for each auxiliary modality, from its divergence from the dominant one (LFVD's Eqs. 14-16).

    .. math:: w^m = \sigma\left(\frac{1}{2} [KL(q^l \,\|\, q^m) + KL(q^m \,\|\, q^l)]\right)

    which lies in [½, 1). As printed, a modality that disagrees more with the dominant one counts more.

    Args:
      posteriors: modality -> Gaussian of `[..., D]`.
      dominant: the modality l that the others are compared with.
      weighting: `sigmoid` (as printed), `two_sigmoid_minus_one` (stretched to [0, 1)), `one_minus` (1 - sigmoid, so
        that agreement counts) or `ones` (plain addition).
      reduction: `sum` of the divergence over its dimensions, or `mean`, which saturates less.

    Returns:
      Modality -> `[...]`, without the dominant one.

    Raises:
      TypeError, ValueError: for an unknown dominant modality, weighting or reduction, something other than a mapping to
        Gaussians, or shapes that differ.

    Examples:
      >>> text = Gaussian(mean=jnp.zeros((2, 4)), scale=jnp.ones((2, 4)))
      >>> audio = Gaussian(mean=jnp.ones((2, 4)), scale=jnp.ones((2, 4)))
      >>> weights = kl_fusion_weights({"text": text, "audio": audio})
      >>> [round(float(w), 3) for w in weights["audio"]]
      [0.881, 0.881]
    """
    check_posteriors(posteriors)
    check_choice("dominant", dominant, posteriors)
    check_choice("weighting", weighting, WEIGHTINGS)
    check_choice("reduction", reduction, REDUCTIONS)
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
    r"""Returns the sum of the dominant modality and the weighted auxiliary ones (LFVD's Eq. 17).

    .. math:: x^f = x^l + \sum_{m \neq l} w^m x^m

    Args:
      features: modality -> float `[..., D]`.
      weights: auxiliary modality -> float `[...]`. One for the dominant modality is not used: its weight is 1.
      dominant: the modality l.

    Returns:
      `[..., D]`.

    Raises:
      TypeError, ValueError: for an unknown dominant modality, weights of other modalities than the auxiliary ones, or
        an argument of another kind or shape.

    Examples:
      >>> features = {"text": jnp.ones((2, 4)), "audio": jnp.ones((2, 4))}
      >>> print(kl_weighted_fusion(features, {"audio": jnp.array([0.5, 0.75])})[:, 0])
      [1.5  1.75]
    """
    sizes = check_arrays(features=(features, "modality -> float [..., D]"))
    check_choice("dominant", dominant, features)
    auxiliary = [m for m in features if m != dominant]
    if auxiliary:
        check_array("weights", weights, "modality -> float [...]", sizes)
        check_modalities("weights", weights, auxiliary)
        for m in weights:
            check_choice("weights", m, features)
    weighted = (x if m == dominant else weights[m][..., None] * x for m, x in features.items())
    return functools.reduce(jnp.add, weighted)
