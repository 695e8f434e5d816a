"""Contrastive losses over the utterances of a batch, across modalities and within them (LFVD's Eqs. 10-11).

Rows are utterances: flatten `[B, T, D]` to `[N, D]`, with `where` True for the real ones. Under a mapped axis each
device passes its own rows; they are compared with the rows of all devices, as if the whole batch were on one.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays, check_choice, check_positive
from jmer.losses.reduction import AxisName, modality_masks, utterance_mask, zero_unless


def cross_modal_contrastive(
    features: Mapping[str, jax.Array],
    *,
    where: jax.Array | Mapping[str, jax.Array] | None = None,
    temperature: float = 0.5,
    denominator: str = "negatives",
    groups: jax.Array | None = None,
    axis: AxisName = None,
) -> jax.Array:
    r"""Returns the self-supervised contrast between modalities, summed over their ordered pairs (LFVD's Eq. 10).

    .. math::
        -\sum_{m \neq m'} \log \frac{\exp(s(x_i^m, x_i^{m'}) / \tau)}{\sum_{j \neq i} \exp(s(x_i^m, x_j^{m'}) / \tau)}

    for utterance i, with s the cosine similarity: the two views of an utterance attract, those of others repel. The
    paper's loss is the sum of the values over N, the number of utterances that count.

    Args:
      features: modality -> float `[N, D]`, one width for all. One modality alone gives zeros.
      where: bool `[N]`, or modality -> bool `[N]` where utterances may lack a modality: an utterance then takes part in
        the pairs both of whose modalities it has. None = all.
      temperature: τ > 0.
      denominator: `negatives` sums over j ≠ i as printed, so that a value may be negative; `all` includes j = i
        (InfoNCE, never negative).
      groups: int `[N]`; if given, only utterances of the same group (e.g. a conversation) are each other's negatives.
        Its numbers must be unique over all devices.
      axis: name or names of the mapped axes whose devices hold the other rows; None = not mapped.

    Returns:
      `[N]`; 0 where masked, and where an utterance has no negative.

    Raises:
      TypeError, ValueError: for an unknown denominator, a temperature that is not above 0, or an argument of another
        kind or shape.

    Examples:
      >>> features = {m: jax.random.normal(jax.random.key(i), (8, 16)) for i, m in enumerate(("text", "audio"))}
      >>> cross_modal_contrastive(features, temperature=0.5).shape
      (8,)
    """
    check_choice("denominator", denominator, ("negatives", "all"))
    check_positive("temperature", temperature)
    sizes = check_arrays(features=(features, "modality -> float [N, D]"), groups=(groups, "int [N]?"))
    count = sizes["N"]
    present = modality_masks(where, features, (count,))
    pairs = list(itertools.permutations(range(len(features)), 2))
    if not pairs:
        return jnp.zeros(count)
    first, second = (jnp.array(indices) for indices in zip(*pairs, strict=True))

    def contrast(rows: _Rows, others: _Rows) -> jax.Array:
        both = rows.mask[:, first] & rows.mask[:, second]
        logits = _similarities(rows.unit[:, first], others.unit[:, second]) / temperature
        is_self = rows.id[:, None] == others.id[None]
        candidates = (others.mask[:, first] & others.mask[:, second]).T[:, None, :]
        if groups is not None:
            candidates &= (rows.kind[:, None] == others.kind[None])[None]
        negatives = candidates & ~is_self[None]
        attraction = jnp.sum(jnp.where(is_self[None], logits, 0), axis=-1)
        repulsion = _masked_logsumexp(logits, negatives if denominator == "negatives" else candidates)
        counts = both.T & negatives.any(axis=-1)
        return jnp.sum(jnp.where(counts, repulsion - attraction, 0), axis=0)

    return _compare(contrast, features, present, jnp.zeros(count, jnp.int32) if groups is None else groups, axis)


def supervised_contrastive(
    features: Mapping[str, jax.Array],
    labels: jax.Array,
    *,
    where: jax.Array | Mapping[str, jax.Array] | None = None,
    temperature: float = 0.5,
    denominator: str = "negatives",
    axis: AxisName = None,
) -> jax.Array:
    r"""Returns the supervised contrast within each modality, summed over modalities (LFVD's Eq. 11).

    .. math::
        -\sum_m \frac{1}{|P(i)|} \sum_{p \in P(i)} \log
        \frac{\exp(s(x_i^m, x_p^m) / \tau)}{\sum_{k \notin P(i)} \exp(s(x_i^m, x_k^m) / \tau)}

    for utterance i, with P(i) the other utterances of its emotion and s the cosine similarity. The paper's loss is the
    sum of the values over N, the number of labelled utterances that count; those with an empty P(i) or an empty
    denominator are among them, with value 0.

    Args:
      features: modality -> float `[N, D]`, one width for all.
      labels: int `[N]`, emotion index; unlabelled (negative) rows are left out.
      where: bool `[N]`, or modality -> bool `[N]` where utterances may lack a modality. None = all.
      temperature: τ > 0.
      denominator: k runs over utterances of other emotions (`negatives`), these and i itself
        (`negatives_plus_self`), or everything but i (`all_but_self`, as in Khosla et al., 2020, arXiv:2004.11362).
      axis: name or names of the mapped axes whose devices hold the other rows; None = not mapped.

    Returns:
      `[N]`; 0 where masked or unlabelled.

    Raises:
      TypeError, ValueError: for an unknown denominator, a temperature that is not above 0, or an argument of another
        kind or shape.

    References:
      Khosla et al., 2020, Supervised Contrastive Learning, arXiv:2004.11362.

    Examples:
      >>> features = {"text": jax.random.normal(jax.random.key(0), (4, 16))}
      >>> values = supervised_contrastive(features, jnp.array([0, 1, 0, -1]), denominator="all_but_self")
      >>> print(values > 0)
      [ True False  True False]
    """
    check_choice("denominator", denominator, ("negatives", "negatives_plus_self", "all_but_self"))
    check_positive("temperature", temperature)
    sizes = check_arrays(features=(features, "modality -> float [N, D]"), labels=(labels, "int [N]"))
    count = sizes["N"]
    present = {m: here & (labels >= 0) for m, here in modality_masks(where, features, (count,)).items()}

    def contrast(rows: _Rows, others: _Rows) -> jax.Array:
        logits = _similarities(rows.unit, others.unit) / temperature
        is_self = rows.id[:, None] == others.id[None]
        same_label = rows.kind[:, None] == others.kind[None]
        compared = {
            "negatives": ~same_label,
            "negatives_plus_self": ~same_label | is_self,
            "all_but_self": ~is_self,
        }[denominator]
        candidates = others.mask.T[:, None, :]
        positives = candidates & (same_label & ~is_self)[None]
        compared = candidates & compared[None]
        positive_count = positives.sum(axis=-1)
        attraction = jnp.sum(jnp.where(positives, logits, 0), axis=-1) / jnp.maximum(positive_count, 1)
        counts = rows.mask.T & (positive_count > 0) & compared.any(axis=-1)
        return jnp.sum(jnp.where(counts, _masked_logsumexp(logits, compared) - attraction, 0), axis=0)

    return _compare(contrast, features, present, labels, axis)


def focal_contrastive(
    features: jax.Array,
    labels: jax.Array,
    *,
    where: jax.Array | None = None,
    class_weights: jax.Array | None = None,
    gamma: float = 2.0,
    temperature: float = 0.5,
    axis: AxisName = None,
) -> jax.Array:
    r"""Returns the sample-weighted focal contrast, which is about rare emotions and hard pairs (MultiEMO's SWFC).

    .. math::
        -\frac{w_{y_i}}{|P(i)|} \sum_{j \in P(i)} (1 - p_{ij})^\gamma \log p_{ij}, \quad
        p_{ij} = \frac{\exp(s(x_i, x_j) / \tau)}{\sum_{k \neq i} \exp(s(x_i, x_k) / \tau)}

    for utterance i, with P(i) the other utterances of its emotion and s the cosine similarity. The loss is the sum of
    the values over the number of utterances that count; those with an empty P(i) are among them, with value 0.

    Args:
      features: float `[N, D]`.
      labels: int `[N]`, emotion index; unlabelled (negative) rows are left out.
      where: bool `[N]`, True where an utterance counts; None = all labelled ones.
      class_weights: float `[C]`, w; None = 1.
      gamma: γ >= 0; the factor it makes carries a gradient.
      temperature: τ > 0.
      axis: name or names of the mapped axes whose devices hold the other rows; None = not mapped.

    Returns:
      `[N]`; 0 where masked or unlabelled.

    Raises:
      TypeError, ValueError: for a temperature that is not above 0, or an argument of another kind or shape.

    Examples:
      >>> values = focal_contrastive(jax.random.normal(jax.random.key(0), (4, 16)), jnp.array([0, 1, 0, -1]))
      >>> print(values > 0)
      [ True False  True False]
    """
    check_positive("temperature", temperature)
    check_arrays(
        features=(features, "float [N, D]"), labels=(labels, "int [N]"), class_weights=(class_weights, "float [C]?")
    )
    present = utterance_mask(where, labels.shape) & (labels >= 0)

    def contrast(rows: _Rows, others: _Rows) -> jax.Array:
        logits = _similarities(rows.unit, others.unit)[0] / temperature
        compared = (rows.id[:, None] != others.id[None]) & others.mask[None, :, 0]
        log_p = jnp.where(compared, logits - _masked_logsumexp(logits, compared)[:, None], 0)
        # Powers below 1 have no gradient at 0.
        focus = jnp.maximum(1 - jnp.exp(log_p), 1e-12) ** gamma
        positives = compared & (rows.kind[:, None] == others.kind[None])
        mean = jnp.sum(jnp.where(positives, focus * log_p, 0), axis=-1) / jnp.maximum(positives.sum(-1), 1)
        weights = 1 if class_weights is None else jnp.asarray(class_weights)[jnp.maximum(rows.kind, 0)]
        return jnp.where(rows.mask[:, 0], -weights * mean, 0)

    return _compare(contrast, {"": features}, {"": present}, labels, axis)


class _Rows(NamedTuple):
    """Utterances.

    unit `[N, M, D]`, rows of length 1; mask bool `[N, M]`, where an utterance has the modality; kind int32 `[N]`, its
    label or group; id int32 `[N]`, unique over all devices.
    """

    unit: jax.Array
    mask: jax.Array
    kind: jax.Array
    id: jax.Array


def _compare(
    contrast: Callable[[_Rows, _Rows], jax.Array],
    features: Mapping[str, jax.Array],
    present: Mapping[str, jax.Array],
    kind: jax.Array,
    axis: AxisName,
) -> jax.Array:
    """Returns each row's contrast with the rows of all devices, `[N]`."""
    mask = jnp.stack([present[m] for m in features], axis=1)
    count, device = len(mask), 0 if axis is None else jax.lax.axis_index(axis)
    here = _Rows(_unit_rows(features, mask), mask, jnp.asarray(kind), device * count + jnp.arange(count))
    return contrast(here, jax.tree.map(lambda x: _gather(x, axis), here))


def _unit_rows(features: Mapping[str, jax.Array], mask: jax.Array) -> jax.Array:
    """Stacks the modalities to `[N, M, D]` and scales rows to length 1; masked rows and zero rows become 0."""
    x = zero_unless(mask, jnp.stack(list(features.values()), axis=1))
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # The epsilon keeps the gradient of a zero row finite; a division by the norm would give NaN there.
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def _similarities(rows: jax.Array, others: jax.Array) -> jax.Array:
    # Low-precision products, an accelerator's default, would err by 1e-3 / τ in the exponent.
    return jnp.einsum("imd,jmd->mij", rows, others, precision=jax.lax.Precision.HIGHEST)


def _gather(x: jax.Array, axis: AxisName) -> jax.Array:
    """Concatenates the rows over devices."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def _masked_logsumexp(logits: jax.Array, where: jax.Array) -> jax.Array:
    """logsumexp over the last axis where True; finite, with zero gradient, where nothing is."""
    return jax.nn.logsumexp(jnp.where(where, logits, -1e9), axis=-1)
