"""The loss that keeps two branches of a network apart (LSDGNN, 2025)."""

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays, check_choice
from jmer.losses.reduction import AxisName, zero_unless
from jmer.segments import Segments, check_segments, one_per_row

UNITS = ("conversation", "utterance")

_EPSILON = 1e-6


def branch_difference(
    first: jax.Array,
    second: jax.Array,
    *,
    where: jax.Array,
    segments: Segments | None = None,
    unit: str = "conversation",
    axis: AxisName = None,
) -> jax.Array:
    r"""Returns how alike the states of two branches are, the inverse of their mean distance (LSDGNN).

    With s and g the vectors of both branches for each of n conversations (or utterances):

    .. math::
        \hat{s}_b = \frac{s_b - \bar{s}}{\|s_b - \bar{s}\| + 10^{-6}}, \quad
        \Delta = \left(\frac{1}{n} \sum_b \|\hat{s}_b - \hat{g}_b\|\right)^{-1} \geq \frac{1}{2}

    and 0 for fewer than two. The vector of a conversation has the states of all its utterances one after another, with
    zeros after the last, so that utterances are compared by their place. The term belongs to a batch as a whole.

    Args:
      first, second: float `[B, T, H]`; values where `where` is False do not matter.
      where: bool `[B, T]`, True where an utterance is real.
      segments: the conversations of packed rows; None = one per row.
      unit: what a vector stands for: a `conversation` or an `utterance`.
      axis: name or names of the mapped axes whose devices hold the other rows; None = not mapped.

    Returns:
      A scalar, the same on all devices.

    Raises:
      TypeError, ValueError: for an unknown unit, or an argument of another kind or shape.

    Examples:
      >>> first, second = (jax.random.normal(jax.random.key(i), (2, 3, 4)) for i in range(2))
      >>> bool(branch_difference(first, second, where=jnp.ones((2, 3), bool)) >= 0.5)
      True
    """
    check_arrays(first=(first, "float [B, T, H]"), second=(second, "float [B, T, H]"), where=(where, "bool [B, T]"))
    check_segments(segments, where.shape[1], len(where))
    check_choice("unit", unit, UNITS)
    segments = one_per_row(*where.shape) if segments is None else segments
    if axis is not None:
        first, second, where, segments = jax.tree.map(
            lambda x: jax.lax.all_gather(x, axis, tiled=True), (first, second, where, segments)
        )
    states = zero_unless(where, first), zero_unless(where, second)
    measure = _between_conversations if unit == "conversation" else _between_utterances
    distances, counted = measure(*states, where, segments)
    count = counted.sum()
    mean = distances.sum() / jnp.maximum(count, 1)
    apart = (count > 1) & (mean > 0)
    return jnp.where(apart, 1 / jnp.where(apart, mean, 1), 0)


def _between_utterances(
    first: jax.Array, second: jax.Array, where: jax.Array, segments: Segments
) -> tuple[jax.Array, jax.Array]:
    """Returns the distance of each utterance's states, `[B, T]`, and which ones there are."""

    def scaled(x: jax.Array) -> jax.Array:
        x = zero_unless(where, x - (x.sum((0, 1)) / jnp.maximum(where.sum(), 1))[None, None])
        return x / (_root(jnp.square(x).sum(-1)) + _EPSILON)[..., None]

    return _root(jnp.square(scaled(first) - scaled(second)).sum(-1)), where


def _between_conversations(
    first: jax.Array, second: jax.Array, where: jax.Array, segments: Segments
) -> tuple[jax.Array, jax.Array]:
    """Returns the distance of each conversation's states, `[B, K]`, and which ones there are.

    A place that a conversation does not reach has zeros, less the mean there: these are added up from the means alone,
    so that no conversation is laid out to the full length.
    """
    members = (segments.membership() & where[:, None, :]).astype(first.dtype)
    places = segments.positions()
    exists = members.any(-1)
    count = jnp.maximum(exists.sum(), 1)
    # [B, K, T], True where a conversation has no utterance at a place.
    absent = 1 - _at_places(members, places)

    def centred(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        if segments.count == 1:
            mean = x.sum(0) / count
            return zero_unless(where, x - mean[None]), mean
        mean = jnp.zeros(x.shape[1:], x.dtype).at[places].add(x) / count
        return zero_unless(where, x - mean[places]), mean

    def total(here: jax.Array, elsewhere: jax.Array) -> jax.Array:
        """Sums over a conversation's utterances, `[B, T]`, and over the places that it does not reach, `[T]`."""
        return jnp.einsum("bkt,bt->bk", members, here) + absent @ elsewhere

    (x, x_mean), (y, y_mean) = centred(first), centred(second)
    x_scale, y_scale = (
        1 / (_root(total(jnp.square(z).sum(-1), jnp.square(mean).sum(-1))) + _EPSILON)
        for z, mean in ((x, x_mean), (y, y_mean))
    )
    difference = segments.broadcast(x_scale)[..., None] * x - segments.broadcast(y_scale)[..., None] * y
    elsewhere = (
        jnp.square(x_scale) * (absent @ jnp.square(x_mean).sum(-1))
        + jnp.square(y_scale) * (absent @ jnp.square(y_mean).sum(-1))
        - 2 * x_scale * y_scale * (absent @ (x_mean * y_mean).sum(-1))
    )
    squares = jnp.einsum("bkt,bt->bk", members, jnp.square(difference).sum(-1)) + jnp.maximum(elsewhere, 0)
    return jnp.where(exists, _root(squares), 0), exists


def _at_places(members: jax.Array, places: jax.Array) -> jax.Array:
    """Returns `members` `[B, K, T]` with each position moved to its place within its conversation."""
    return jnp.einsum("bkt,btp->bkp", members, jax.nn.one_hot(places, places.shape[1], dtype=members.dtype))


def _root(squares: jax.Array) -> jax.Array:
    """Returns the square root, with gradient 0 at 0."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
