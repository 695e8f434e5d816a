"""Distillation from one modality's distribution, or from one head's prediction, to the others."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jmer.layers.gaussian import Gaussian, gaussian_kl, log_density, standard_normal_like
from jmer.losses.reduction import modality_masks, utterance_mask, zero_unless


def variational_distillation(
    posteriors: Mapping[str, Gaussian],
    *,
    teacher: str = "text",
    stop_teacher_gradient: bool = False,
    where: jax.Array | Mapping[str, jax.Array] | None = None,
    samples: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """Returns Σ_{m ≠ teacher} KL(q^m || q^teacher) + Σ_m KL(q^m || N(0, I)) for each utterance (LFVD, Eq. 13).

    Args:
      posteriors: modality -> Gaussian of shape `[..., D]`. The teacher alone leaves its divergence from N(0, I).
      teacher: the modality that the others learn from.
      stop_teacher_gradient: if True, the students' divergences do not move the teacher.
      where: bool `[...]`, or modality -> bool `[...]` where utterances may lack a modality: its terms are then left
        out, and without the teacher every student's. None = all.
      samples: modality -> float32 `[..., D]`, one reparameterised draw z from each posterior. If given, KL(q || p) is
        estimated by log q(z) − log p(z), whose single values may be negative; None = the closed form.

    Returns:
      float32 `[...]`, in nats; 0 where masked.

    Raises:
      ValueError: if the teacher is not among the posteriors, a modality lacks its sample, or shapes disagree.
    """
    if teacher not in posteriors:
        raise ValueError(f"unknown teacher '{teacher}'; the posteriors are of {', '.join(posteriors)}")
    shapes = {m: q.mean.shape for m, q in posteriors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"posteriors must have one shape, but they have {shapes}")
    if samples is not None and (missing := [m for m in posteriors if m not in samples]):
        raise ValueError(f"samples has no draw for {', '.join(missing)}")
    shape = shapes[teacher][:-1]
    present = modality_masks(where, posteriors, shape)
    # Standard normals stand in where a modality is absent: finite values, no gradient.
    posteriors = {m: _standard_normal_unless(present[m], q) for m, q in posteriors.items()}

    def divergence(modality: str, other: Gaussian) -> jax.Array:
        posterior = posteriors[modality]
        if samples is None:
            return gaussian_kl(posterior, other)
        z = zero_unless(present[modality], samples[modality])
        return log_density(posterior, z) - log_density(other, z)

    target = jax.lax.stop_gradient(posteriors[teacher]) if stop_teacher_gradient else posteriors[teacher]
    prior = standard_normal_like(target)
    total = jnp.zeros(shape)
    for modality in posteriors:
        total += jnp.where(present[modality], divergence(modality, prior), 0)
        if modality != teacher:
            total += jnp.where(present[modality] & present[teacher], divergence(modality, target), 0)
    return total


def _standard_normal_unless(where: jax.Array, q: Gaussian) -> Gaussian:
    return Gaussian(zero_unless(where, q.mean), jnp.where(where[..., None], q.scale, 1))


def soft_label_distillation(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    *,
    temperature: float = 1.0,
    stop_teacher_gradient: bool = False,
    where: jax.Array | None = None,
) -> jax.Array:
    """Returns KL(softmax(teacher / τ) || softmax(student / τ)) for each utterance.

    It is the soft-label loss of LPGNet, in the form of its parent SDT (Ma et al., 2023, arXiv:2310.20494): there is
    no factor τ², and the teacher learns too unless its gradient is stopped.

    Args:
      student_logits: float32 `[..., C]`.
      teacher_logits: float32 `[..., C]`.
      temperature: τ > 0.
      stop_teacher_gradient: if True, the teacher's logits get no gradient.
      where: bool `[...]`, True where an utterance counts; None = all.

    Returns:
      float32 `[...]`, in nats; 0 where masked.

    Raises:
      ValueError: if shapes disagree.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"student_logits have shape {student_logits.shape}, teacher_logits {teacher_logits.shape}")
    counts = utterance_mask(where, student_logits.shape[:-1])
    if stop_teacher_gradient:
        teacher_logits = jax.lax.stop_gradient(teacher_logits)
    student, teacher = (
        jax.nn.log_softmax(zero_unless(counts, logits) / temperature, axis=-1)
        for logits in (student_logits, teacher_logits)
    )
    return jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
