"""Preferences in lists: who is more aroused than whom, in the manner of RankList (2025, arXiv:2508.09826).

That paper extends RankNet from pairs to ordered lists, with a margin between the labels that count as ordered,
comparisons of neighbours and across some of them, and a log-sum-exp in place of a sum. Its equations are not public:
those here are jmer's own, made from that description.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays, check_choice
from jmer.layers.normalization import AxisName
from jmer.losses.reduction import gather_from_devices, utterance_mask

FORMS = ("exact", "lse", "listmle", "ranknet")


def listwise_preference(
    scores: jax.Array,
    targets: jax.Array,
    *,
    form: str = "exact",
    skip_weights: jax.Array | Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    margin: float | jax.Array = 0.0,
    where: jax.Array | None = None,
    groups: jax.Array | None = None,
    axis: AxisName = None,
) -> jax.Array:
    r"""Returns how far scores are from the order of the targets, a mean over lists of utterances.

    With π the utterances of a list from the highest target y to the lowest, and
    :math:`E_k = \{(\pi_r, \pi_{r+k}) : y_{\pi_r} - y_{\pi_{r+k}} \geq W\}` the pairs that are k places apart:

    .. math::
        \text{exact:} \quad & \ell_k = \frac{1}{|E_k|} \sum_{(i,j) \in E_k} \ln(1 + e^{s_j - s_i}) \\
        \text{lse:} \quad & \ell_k = \ln\Big(1 + \sum_{(i,j) \in E_k} e^{s_j - s_i}\Big)

    each weighted, :math:`\sum_k \omega_k \ell_k / \sum_k \omega_k`; `ranknet` is the mean of `exact` over all pairs,
    any number of places apart, and `listmle` the negative logarithm of the probability of the order,
    :math:`-\sum_r (s_{\pi_r} - \ln \sum_{r' \geq r} e^{s_{\pi_{r'}}})`.

    Utterances with the same target, which are never compared, are ordered by their scores: the loss does not depend on
    the order of the batch, and at the border of two such groups it compares those that the scores confuse most.

    The value is that of all devices, on every device; its gradient is that of this device's utterances, see
    `jmer.losses.masked_mean`.

    Args:
      scores: float `[N]`, what is predicted.
      targets: float `[N]`, NaN = unlabelled.
      form: `exact`, `lse` (less than the sum of `exact`, and dominated by the worst inversion), `listmle` or `ranknet`
        (of N² pairs).
      skip_weights: ω, K numbers of 0 or above, for pairs that are 1 to K places apart; of `exact` and `lse`.
      margin: W, the smallest difference of targets that counts as an order, 0 = any; not of `listmle`.
      where: bool `[N]`, True where an utterance counts; None = all labelled ones.
      groups: int `[N]`, the list of each utterance (e.g. its conversation), unique over all devices; None = one list.
      axis: name or names of the mapped axes whose devices hold the other utterances; None = not mapped.

    Returns:
      A scalar, the mean over the lists in which anything is compared; 0 if there is none.

    Raises:
      TypeError, ValueError: for an unknown form, or an argument of another kind or shape.

    Examples:
      >>> targets = jnp.array([3.0, 1.0, 2.0, jnp.nan])
      >>> right, wrong = listwise_preference(5 * targets, targets), listwise_preference(-5 * targets, targets)
      >>> bool(right < 0.1 < wrong)
      True
    """
    check_choice("form", form, FORMS)
    weights = jnp.asarray(skip_weights, float)
    check_arrays(
        scores=(scores, "float [N]"),
        targets=(targets, "float [N]"),
        groups=(groups, "int [N]?"),
        skip_weights=(weights, "float [K]"),
    )
    counts = utterance_mask(where, targets.shape) & ~jnp.isnan(targets)
    lists = jnp.zeros(len(targets), jnp.int32) if groups is None else groups
    s, y, g, counts = (
        gather_from_devices(x, axis)
        for x in (jnp.where(counts, scores, 0), jnp.where(counts, targets, 0), lists, counts)
    )
    order = jnp.lexsort((-jax.lax.stop_gradient(s), -y, g, ~counts))
    s, y, g, counts = (x[order] for x in (s, y, g, counts))
    # Lists by number, in their order; what does not count is last, in lists of its own.
    begins = (g[1:] != g[:-1]) | (counts[1:] != counts[:-1])
    ranked = _Ranked(s, y, jnp.pad(jnp.cumsum(begins), (1, 0)), counts)
    if form == "listmle":
        losses, compared = _list_likelihoods(ranked)
    elif form == "ranknet":
        losses, compared = _all_pairs(ranked, margin)
    else:
        losses, compared = _skipping_pairs(ranked, margin, weights, form)
    return jnp.sum(jnp.where(compared, losses, 0)) / jnp.maximum(jnp.sum(compared), 1)


class _Ranked(NamedTuple):
    """`N` utterances, list by list, from the highest target to the lowest.

    scores, targets float `[N]`; list int `[N]`, its number, ascending from 0; counts bool `[N]`, where an utterance
    counts.
    """

    scores: jax.Array
    targets: jax.Array
    list: jax.Array
    counts: jax.Array

    def per_list(self, values: jax.Array, skipped: int = 0) -> jax.Array:
        """Returns the sum of each list's values `[N - skipped]`, without the first of all, `[N]`."""
        return jax.ops.segment_sum(values, self.list[skipped:], len(self.list), indices_are_sorted=True)


def _ordered(higher: jax.Array, lower: jax.Array, margin: float | jax.Array) -> jax.Array:
    return (higher > lower) & (higher - lower >= margin)


def _skipping_pairs(
    ranked: _Ranked, margin: float | jax.Array, weights: jax.Array, form: str
) -> tuple[jax.Array, jax.Array]:
    """Returns each list's loss, and whether anything is compared in it, `[N]`."""
    s, y, lists = ranked.scores, ranked.targets, ranked.list
    total, compared = jnp.zeros_like(s), jnp.zeros(len(s), bool)
    for k in range(1, min(len(weights), len(s) - 1) + 1):
        pairs = ranked.counts[k:] & (lists[k:] == lists[:-k]) & _ordered(y[:-k], y[k:], margin)
        difference = jnp.where(pairs, s[k:] - s[:-k], 0)
        number = ranked.per_list(pairs.astype(s.dtype), k)
        if form == "exact":
            loss = ranked.per_list(jnp.where(pairs, jax.nn.softplus(difference), 0), k) / jnp.maximum(number, 1)
        else:
            # The highest exponent of a list is taken out of its sum, at least the 0 of the 1 in it.
            highest = jnp.maximum(jax.ops.segment_max(difference, lists[k:], len(s), indices_are_sorted=True), 0)
            highest = jax.lax.stop_gradient(highest)
            powers = jnp.where(pairs, jnp.exp(difference - highest[lists[k:]]), 0)
            loss = highest + jnp.log(jnp.exp(-highest) + ranked.per_list(powers, k))
        total += weights[k - 1] * jnp.where(number > 0, loss, 0)
        compared |= (number > 0) & (weights[k - 1] > 0)
    return total / jnp.maximum(jnp.sum(weights), 1e-8), compared


def _all_pairs(ranked: _Ranked, margin: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `_skipping_pairs`."""
    s, y = ranked.scores, ranked.targets
    pairs = (ranked.counts[:, None] & ranked.counts[None]) & (ranked.list[:, None] == ranked.list[None])
    pairs &= _ordered(y[:, None], y[None], margin)
    values = jnp.where(pairs, jax.nn.softplus(jnp.where(pairs, s[None] - s[:, None], 0)), 0)
    number = ranked.per_list(pairs.sum(1).astype(s.dtype))
    return ranked.per_list(values.sum(1)) / jnp.maximum(number, 1), number > 0


def _list_likelihoods(ranked: _Ranked) -> tuple[jax.Array, jax.Array]:
    """As `_skipping_pairs`."""

    def added(later: tuple, here: tuple) -> tuple:
        """Adds what follows in the same list, as logarithms of sums."""
        return here[0], jnp.where(later[0] == here[0], jnp.logaddexp(later[1], here[1]), here[1])

    _, rest = jax.lax.associative_scan(added, (ranked.list, ranked.scores), reverse=True)
    values = jnp.where(ranked.counts, rest - ranked.scores, 0)
    return ranked.per_list(values), ranked.per_list(ranked.counts.astype(jnp.int32)) > 1
