"""Distillation from one modality's distribution, or from one head's prediction, to the others."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jmer.checks import check_array, check_arrays, check_choice, check_modalities, check_positive
from jmer.layers.gaussian import Gaussian, check_posteriors, gaussian_kl, log_density, standard_normal_like
from jmer.losses.reduction import modality_masks, utterance_mask, zero_unless


def variational_distillation(
    posteriors: Mapping[str, Gaussian],
    *,
    teacher: str = "text",
    stop_teacher_gradient: bool = False,
    where: jax.Array | Mapping[str, jax.Array] | None = None,
    samples: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    r"""Returns the divergences of the modalities from their teacher and from a standard normal (LFVD's Eq. 13).

    .. math:: \sum_{m \neq l} KL(q^m \,\|\, q^l) + \sum_m KL(q^m \,\|\, \mathcal{N}(0, I))

    Args:
      posteriors: modality -> Gaussian of shape `[..., D]`. The teacher alone leaves its divergence from N(0, I).
      teacher: the modality l that the others learn from.
      stop_teacher_gradient: if True, the students' divergences do not move the teacher.
      where: bool `[...]`, or modality -> bool `[...]` where utterances may lack a modality: its terms are then left
        out, and without the teacher every student's. None = all.
      samples: modality -> float `[..., D]`, one reparametrized draw z from each posterior. If given, KL(q || p) is
        estimated by log q(z) − log p(z), whose single values may be negative; None = the closed form.

    Returns:
      `[...]`, in nats; 0 where masked.

    Raises:
      TypeError, ValueError: for an unknown teacher, samples of other modalities, something other than a mapping to
        Gaussians, or an argument of another kind or shape.

    Examples:
      >>> text = Gaussian(mean=jnp.zeros((2, 4)), scale=jnp.ones((2, 4)))
      >>> audio = Gaussian(mean=jnp.ones((2, 4)), scale=jnp.ones((2, 4)))
      >>> print(variational_distillation({"text": text, "audio": audio}))
      [4. 4.]
    """
    check_posteriors(posteriors)
    check_choice("teacher", teacher, posteriors)
    shape, width = posteriors[teacher].mean.shape[:-1], posteriors[teacher].mean.shape[-1]
    if samples is not None:
        check_array("samples", samples, "modality -> float [..., D]", {"...": shape, "D": width})
        check_modalities("samples", samples, posteriors)
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
    r"""Returns the divergence of the student's distribution from the teacher's (SDT; LPGNet's loss of soft labels).

    .. math:: KL\left(\mathrm{softmax}(u^t / \tau) \,\|\, \mathrm{softmax}(u^s / \tau)\right)

    with u the logits. There is no factor τ², and the teacher learns too unless its gradient is stopped.

    Args:
      student_logits: float `[..., C]`.
      teacher_logits: float `[..., C]`.
      temperature: τ > 0.
      stop_teacher_gradient: if True, the teacher's logits get no gradient.
      where: bool `[...]`, True where an utterance counts; None = all.

    Returns:
      `[...]`, in nats; 0 where masked.

    Raises:
      TypeError, ValueError: for a temperature that is not above 0, or an argument of another kind or shape.

    References:
      Ma et al., 2023, A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in
      Conversations, arXiv:2310.20494.

    Examples:
      >>> logits = jnp.array([[0.0, 1.0]])
      >>> print(soft_label_distillation(logits, logits))
      [0.]
    """
    check_positive("temperature", temperature)
    check_arrays(
        student_logits=(student_logits, "float [..., C]"),
        teacher_logits=(teacher_logits, "float [..., C]"),
        where=(where, "bool [...]?"),
    )
    counts = utterance_mask(where, student_logits.shape[:-1])
    if stop_teacher_gradient:
        teacher_logits = jax.lax.stop_gradient(teacher_logits)
    student, teacher = (
        jax.nn.log_softmax(zero_unless(counts, logits) / temperature, axis=-1)
        for logits in (student_logits, teacher_logits)
    )
    return jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
