"""Diagonal Gaussians and the divergences between them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jmer.checks import check_array, check_mapping, describe


@struct.dataclass
class Gaussian:
    r"""A diagonal Gaussian per position, :math:`\mathcal{N}(\mu, \mathrm{diag}(s^2))`.

    Attributes:
      mean: μ, float `[..., D]`.
      scale: s, float `[..., D]`, the standard deviation, above 0.
    """

    mean: jax.Array
    scale: jax.Array


def check_gaussians(**gaussians: Gaussian) -> None:
    """Checks that arguments are Gaussians of one shape `[..., D]`.

    Raises:
      TypeError: for something other than a Gaussian.
      ValueError: if means and scales have different shapes.
    """
    sizes: dict[str, Any] = {}
    for name, gaussian in gaussians.items():
        if not isinstance(gaussian, Gaussian):
            raise TypeError(f"{name}: expected a jmer.layers.Gaussian, got {describe(gaussian)}")
        check_array(f"{name}.mean", gaussian.mean, "float [..., D]", sizes)
        check_array(f"{name}.scale", gaussian.scale, "float [..., D]", sizes)


def check_posteriors(posteriors: Mapping[str, Gaussian]) -> None:
    """Checks that `posteriors` is a mapping from modality to Gaussians of one shape, of at least one.

    Raises:
      TypeError, ValueError: see `check_gaussians`.
    """
    check_mapping("posteriors", posteriors, "a jmer.layers.Gaussian")
    check_gaussians(**{f"posteriors[{m!r}]": posterior for m, posterior in posteriors.items()})


def standard_normal_like(p: Gaussian) -> Gaussian:
    """Returns N(0, I) with the shape of `p`."""
    return Gaussian(jnp.zeros_like(p.mean), jnp.ones_like(p.scale))


def log_density(p: Gaussian, z: jax.Array) -> jax.Array:
    """Returns the log density of `p` at `z`, summed over the last axis.

    Args:
      p: Gaussian of shape `[..., D]`.
      z: float `[..., D]`.

    Returns:
      `[...]`, in nats.
    """
    standardized = (z - p.mean) / p.scale
    return -jnp.sum(0.5 * jnp.square(standardized) + jnp.log(p.scale) + 0.5 * math.log(2 * math.pi), axis=-1)


def gaussian_kl(p: Gaussian, q: Gaussian) -> jax.Array:
    r"""Returns the divergence of two diagonal Gaussians, summed over the last axis (for LFVD's Eqs. 12-13).

    .. math::
        KL(p \,\|\, q) = \sum_k \left[ \ln\frac{s_{q,k}}{s_{p,k}}
        + \frac{s_{p,k}^2 + (\mu_{p,k} - \mu_{q,k})^2}{2 s_{q,k}^2} - \frac{1}{2} \right]

    computed in the relative excess :math:`(s_p - s_q) / s_q`, so that nearly equal Gaussians do not cancel to noise.

    Args:
      p: Gaussian of shape `[..., D]`.
      q: Gaussian of the same shape.

    Returns:
      `[...]`, in nats.

    Raises:
      TypeError, ValueError: for something other than a Gaussian, or shapes that differ.

    Examples:
      >>> p = Gaussian(mean=jnp.array([1.0, 0.0]), scale=jnp.array([1.0, 1.0]))
      >>> q = Gaussian(mean=jnp.array([0.0, 0.0]), scale=jnp.array([1.0, 1.0]))
      >>> float(gaussian_kl(p, q))
      0.5
    """
    check_gaussians(p=p, q=q)
    gap = p.scale - q.scale
    excess = gap / q.scale
    # ln(s_p / s_q) with log1p of a positive argument only, since log1p loses everything near -1 (s_p << s_q).
    log_ratio = jnp.log1p(jnp.maximum(gap, 0) / q.scale) - jnp.log1p(jnp.maximum(-gap, 0) / p.scale)
    shift = (p.mean - q.mean) / q.scale
    return jnp.sum(0.5 * (jnp.square(excess) + jnp.square(shift)) + (excess - log_ratio), axis=-1)


def symmetric_kl(p: Gaussian, q: Gaussian) -> jax.Array:
    r"""Returns the mean divergence of both directions, summed over the last axis (in LFVD's Eqs. 14-15).

    .. math::
        \frac{1}{2} [KL(p \,\|\, q) + KL(q \,\|\, p)] = \frac{1}{4} \sum_k \left[
        \left(\frac{s_{p,k}}{s_{q,k}} - \frac{s_{q,k}}{s_{p,k}}\right)^2
        + (\mu_{p,k} - \mu_{q,k})^2 \left(\frac{1}{s_{p,k}^2} + \frac{1}{s_{q,k}^2}\right) \right]

    The logarithms of the two directions cancel; the sum of squares is never negative, and 0 for p = q only.

    Args:
      p: Gaussian of shape `[..., D]`.
      q: Gaussian of the same shape.

    Returns:
      `[...]`, in nats.

    Raises:
      TypeError, ValueError: for something other than a Gaussian, or shapes that differ.

    Examples:
      >>> p = Gaussian(mean=jnp.array([1.0, 0.0]), scale=jnp.array([1.0, 1.0]))
      >>> q = Gaussian(mean=jnp.array([0.0, 0.0]), scale=jnp.array([1.0, 1.0]))
      >>> float(symmetric_kl(p, q))
      0.5
    """
    check_gaussians(p=p, q=q)
    shift = p.mean - q.mean
    # s_p / s_q - s_q / s_p, factored so that neither equal nor extreme scales lose digits.
    scales = (p.scale - q.scale) / p.scale * ((p.scale + q.scale) / q.scale)
    squares = jnp.square(scales) + jnp.square(shift / p.scale) + jnp.square(shift / q.scale)
    return 0.25 * jnp.sum(squares, axis=-1)
