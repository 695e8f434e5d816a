"""Correlation between modalities: the soft maximal correlation of Hirschfeld, Gebelein and Rényi (Soft-HGR).

Rows are utterances: flatten `[B, T, D]` to `[N, D]`, with `where` True for the real ones. Under a mapped axis each
device passes its own rows; sums run over the rows of all devices, as if the whole batch were on one.
"""

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays, check_choice
from jmer.losses.reduction import AxisName, utterance_mask, zero_unless

COVARIANCES = ("utterances", "features")


def soft_hgr(
    features: Mapping[str, jax.Array],
    *,
    where: jax.Array | None = None,
    covariance: str = "utterances",
    axis: AxisName = None,
) -> jax.Array:
    r"""Returns each utterance's part of the negative Soft-HGR correlation, summed over pairs of modalities.

    With `covariance="features"`, as in the literature, the loss is

    .. math:: -\sum_{m < m'} \left(\mathbb{E}[\bar f^{m\top} \bar f^{m'}] - \tfrac{1}{2}
        \mathrm{tr}(\mathrm{cov}(f^m)\, \mathrm{cov}(f^{m'}))\right)

    with covariances `D x D` over utterances. With `utterances`, as in MultiEMO's code, the covariances are `N x N`,
    between utterances over their features, the first mean is not centred, and everything is divided by N once more:

    .. math:: -\frac{1}{N} \sum_{m < m'} \left(\frac{1}{N} \sum_i f_i^{m\top} f_i^{m'} - \frac{1}{2N}
        \mathrm{tr}(\mathrm{cov}_r(f^m)\, \mathrm{cov}_r(f^{m'}))\right)

    The loss is the mean of the values over the N utterances that count. Either takes `D x D` products alone.

    Args:
      features: modality -> float `[N, D]`, one width for all. One modality alone gives zeros.
      where: bool `[N]`, True where an utterance counts; None = all.
      covariance: `utterances` or `features`.
      axis: name or names of the mapped axes whose devices hold the other rows; None = not mapped.

    Returns:
      `[N]`; 0 where masked.

    Raises:
      TypeError, ValueError: for an unknown covariance, or an argument of another kind or shape.

    References:
      Wang et al., 2019, An Efficient Approach to Informative Feature Extraction from Multimodal Data, AAAI.

    Examples:
      >>> features = {m: jax.random.normal(jax.random.key(i), (8, 4)) for i, m in enumerate(("text", "audio"))}
      >>> soft_hgr(features).shape
      (8,)
    """
    check_choice("covariance", covariance, COVARIANCES)
    sizes = check_arrays(features=(features, "modality -> float [N, D]"))
    counts = utterance_mask(where, (sizes["N"],))
    pairs = list(itertools.combinations(range(len(features)), 2))
    if not pairs:
        return jnp.zeros(sizes["N"])
    here = zero_unless(counts, jnp.stack(list(features.values())))
    # The rows of all devices, whose gradients go back to them.
    everywhere = here if axis is None else jax.lax.all_gather(here, axis, axis=1, tiled=True)
    total = jnp.sum(counts, dtype=here.dtype)
    total = jnp.maximum(total if axis is None else jax.lax.psum(total, axis), 1)
    first, second = (jnp.array(indices) for indices in zip(*pairs, strict=True))
    if covariance == "utterances":
        centred, all_centred = (x - x.mean(-1, keepdims=True) for x in (here, everywhere))
        # The squared norm of a D x D product is the trace of the product of two N x N ones.
        joint = _product("pnd,pne->pde", all_centred[first], all_centred[second]) / max(sizes["D"] - 1, 1) ** 2
        spread = _product("pnd,pde,pne->pn", centred[first], joint, centred[second])
        values = (jnp.sum(here[first] * here[second], axis=-1) - spread / 2) / total
    else:
        mean = everywhere.sum(1, keepdims=True) / total
        centred = zero_unless(counts, here - mean)
        moments = _product("mnd,mne->mde", everywhere, everywhere) - total * _product("mnd,mne->mde", mean, mean)
        covariances = moments / jnp.maximum(total - 1, 1)
        spread = _product("pnd,pde,pne->pn", centred[first], covariances[second], centred[first])
        spread = spread * total / jnp.maximum(total - 1, 1)
        values = jnp.sum(centred[first] * centred[second], axis=-1) - spread / 2
    return jnp.where(counts, -values.sum(0), 0)


def _product(indices: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(indices, *arrays, precision=jax.lax.Precision.HIGHEST)
