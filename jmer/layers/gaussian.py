"""Diagonal Gaussians and the divergences between them."""

import math

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Gaussian:
    """A diagonal Gaussian per position, N(mean, diag(scale²)).

    Attributes:
      mean: float32 `[..., D]`.
      scale: float32 `[..., D]`, standard deviation, > 0.
    """

    mean: jax.Array
    scale: jax.Array


def standard_normal_like(p: Gaussian) -> Gaussian:
    """Returns N(0, I) with the shape of `p`."""
    return Gaussian(jnp.zeros_like(p.mean), jnp.ones_like(p.scale))


def log_density(p: Gaussian, z: jax.Array) -> jax.Array:
    """Returns the log density of `p` at `z`, summed over the last axis.

    Args:
      p: Gaussian of shape `[..., D]`.
      z: float32 `[..., D]`.

    Returns:
      float32 `[...]`, in nats.
    """
    standardized = (z - p.mean) / p.scale
    return -jnp.sum(0.5 * jnp.square(standardized) + jnp.log(p.scale) + 0.5 * math.log(2 * math.pi), axis=-1)


def gaussian_kl(p: Gaussian, q: Gaussian) -> jax.Array:
    """Returns KL(p || q), summed over the last axis (LFVD, Eq. 12).

    Per dimension ln(s_q / s_p) + (s_p² + (m_p − m_q)²) / (2 s_q²) − ½, written in the relative excess
    e = (s_p − s_q) / s_q, so that nearly equal Gaussians do not cancel to noise.

    Args:
      p: Gaussian of shape `[..., D]`.
      q: Gaussian of the same shape.

    Returns:
      float32 `[...]`, in nats.
    """
    gap = p.scale - q.scale
    excess = gap / q.scale
    # ln(s_p / s_q) with log1p of a positive argument only, since log1p loses everything near -1 (s_p << s_q).
    log_ratio = jnp.log1p(jnp.maximum(gap, 0) / q.scale) - jnp.log1p(jnp.maximum(-gap, 0) / p.scale)
    shift = (p.mean - q.mean) / q.scale
    return jnp.sum(0.5 * (jnp.square(excess) + jnp.square(shift)) + (excess - log_ratio), axis=-1)


def symmetric_kl(p: Gaussian, q: Gaussian) -> jax.Array:
    """Returns (KL(p || q) + KL(q || p)) / 2, summed over the last axis (the ambiguity in LFVD, Eqs. 14-15).

    The logarithms of the two directions cancel; what is left is a sum of squares,
    ¼ [(s_p / s_q − s_q / s_p)² + (m_p − m_q)² (1 / s_p² + 1 / s_q²)] per dimension: never negative, 0 for p = q only.

    Args:
      p: Gaussian of shape `[..., D]`.
      q: Gaussian of the same shape.

    Returns:
      float32 `[...]`, in nats.
    """
    shift = p.mean - q.mean
    # s_p / s_q - s_q / s_p, factored so that neither equal nor extreme scales lose digits.
    scales = (p.scale - q.scale) / p.scale * ((p.scale + q.scale) / q.scale)
    squares = jnp.square(scales) + jnp.square(shift / p.scale) + jnp.square(shift / q.scale)
    return 0.25 * jnp.sum(squares, axis=-1)
