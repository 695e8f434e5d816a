"""Contrastive losses over the utterances of a batch, across modalities and within them (LFVD, Eqs. 10-11).

Rows are utterances: flatten `[B, T, D]` to `[N, D]` and say in `where` which are real. Under a mapped axis each device
passes its own rows; they are compared with the rows of all devices, so that the values are those of the whole batch.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmer.losses.reduction import AxisName, check_choice, modality_masks, zero_unless


def cross_modal_contrastive(
    features: Mapping[str, jax.Array],
    *,
    where: jax.Array | Mapping[str, jax.Array] | None = None,
    temperature: float = 0.5,
    denominator: str = "negatives",
    groups: jax.Array | None = None,
    axis: AxisName = None,
) -> jax.Array:
    """Returns the self-supervised contrast between modalities, summed over their ordered pairs (LFVD, Eq. 10).

    For an ordered pair (m, m') of modalities and s the cosine similarity, utterance i has
    −log[ exp(s(x_i^m, x_i^m') / τ) / Σ_j exp(s(x_i^m, x_j^m') / τ) ]: its two views attract, other utterances repel.
    The paper's loss is the sum of the values over N, the number of utterances that count.

    Args:
      features: modality -> float32 `[N, D]`, one width for all. One modality alone gives zeros.
      where: bool `[N]`, or modality -> bool `[N]` where utterances may lack a modality: an utterance then takes part in
        the pairs both of whose modalities it has. None = all.
      temperature: τ > 0.
      denominator: `negatives` sums over j ≠ i as printed, so that a value may be negative; `all` includes j = i
        (InfoNCE, never negative).
      groups: int32 `[N]`; if given, only utterances of the same group (a conversation, say) are each other's negatives.
        Its numbers must be unique over all devices.
      axis: mapped axis name or names whose devices hold the other rows, None = unmapped.

    Returns:
      float32 `[N]`; 0 where masked, and where an utterance has no negative.

    Raises:
      ValueError: for an unknown denominator or shapes that disagree.
    """
    check_choice("denominator", denominator, ("negatives", "all"))
    names, count = _check_rows(features, groups=groups)
    present = modality_masks(where, features, (count,))
    pairs = list(itertools.permutations(range(len(names)), 2))
    if not pairs:
        return jnp.zeros(count)
    first, second = (jnp.array(indices) for indices in zip(*pairs, strict=True))

    def contrast(rows: _Rows, others: _Rows) -> jax.Array:
        both = rows.mask[:, first] & rows.mask[:, second]
        logits = _similarities(rows.unit[:, first], others.unit[:, second]) / temperature
        is_self = rows.number[:, None] == others.number[None]
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
    """Returns the supervised contrast within each modality, summed over modalities (LFVD, Eq. 11).

    With P(i) the other utterances of i's emotion and s the cosine similarity, utterance i has
    −1/|P(i)| Σ_{p ∈ P(i)} log[ exp(s(x_i, x_p) / τ) / Σ_k exp(s(x_i, x_k) / τ) ].
    The paper's loss is the sum of the values over N, the number of labelled utterances that count; those with an empty
    P(i) or an empty denominator are among them, with value 0.

    Args:
      features: modality -> float32 `[N, D]`, one width for all.
      labels: int32 `[N]`, emotion index; unlabelled (negative) rows are left out.
      where: bool `[N]`, or modality -> bool `[N]` where utterances may lack a modality. None = all.
      temperature: τ > 0.
      denominator: k runs over utterances of other emotions (`negatives`), these and i itself
        (`negatives_plus_self`), or everything but i (`all_but_self`, as in Khosla et al., 2020, arXiv:2004.11362).
      axis: mapped axis name or names whose devices hold the other rows, None = unmapped.

    Returns:
      float32 `[N]`; 0 where masked or unlabelled.

    Raises:
      ValueError: for an unknown denominator or shapes that disagree.
    """
    check_choice("denominator", denominator, ("negatives", "negatives_plus_self", "all_but_self"))
    _, count = _check_rows(features, labels=labels)
    present = {m: here & (labels >= 0) for m, here in modality_masks(where, features, (count,)).items()}

    def contrast(rows: _Rows, others: _Rows) -> jax.Array:
        logits = _similarities(rows.unit, others.unit) / temperature
        is_self = rows.number[:, None] == others.number[None]
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


def _check_rows(features: Mapping[str, jax.Array], **rows: jax.Array | None) -> tuple[list[str], int]:
    shapes = {m: x.shape for m, x in features.items()}
    if not shapes or len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(
            f"features must be [N, D] with the same N and D in every modality, but their shapes are {shapes}"
        )
    count = next(iter(shapes.values()))[0]
    for name, values in rows.items():
        if values is not None and values.shape != (count,):
            raise ValueError(f"{name} have shape {values.shape}, but features have {count} rows")
    return list(features), count


class _Rows(NamedTuple):
    """Utterances.

    unit `[N, M, D]`, rows of length 1; mask bool `[N, M]`, where an utterance has the modality; kind int32 `[N]`, what
    it is compared by; number int32 `[N]`, unique over all devices.
    """

    unit: jax.Array
    mask: jax.Array
    kind: jax.Array
    number: jax.Array


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
