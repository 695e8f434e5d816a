"""The utterances of each party of a conversation on their own, in their order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmer.checks import check_arrays
from jmer.segments import Segments, one_per_row


class PartyOrder(NamedTuple):
    """An order of the positions of rows in which a party's utterances of a conversation are neighbours.

    Attributes:
      order: int32 `[B, T]`, the position that comes first, second, and so on: by conversation, then by party, then by
        time; padding is last.
      inverse: int32 `[B, T]`, the place of each position in that order.
      segments: the (conversation, party) pairs, as segments of rows in that order.
    """

    order: jax.Array
    inverse: jax.Array
    segments: Segments

    def sort(self, x: jax.Array) -> jax.Array:
        """Brings `[B, T, ...]` into this order."""
        return _permuted(x, self.order, self.inverse)

    def unsort(self, x: jax.Array) -> jax.Array:
        """Brings `[B, T, ...]` in this order back to the order of time."""
        return _permuted(x, self.inverse, self.order)


def party_order(speakers: jax.Array, mask: jax.Array, *, segments: Segments | None = None) -> PartyOrder:
    """Returns the order in which a network that stops at segments' borders reads each party's utterances alone.

    The network's cost does not depend on the number of parties, as it would with a copy of the row for each.
    Sorting has no forward-mode derivative (`jax.jvp`).

    Args:
      speakers: int `[B, T]`, numbered within a conversation; values where `mask` is False do not matter.
      mask: bool `[B, T]`, True where an utterance is real.
      segments: the conversations of packed rows; None = one per row.

    Raises:
      TypeError, ValueError: for an argument of another kind or shape.

    Examples:
      >>> order = party_order(jnp.array([[0, 1, 0, 1, 1]]), jnp.array([[True, True, True, True, False]]))
      >>> print(order.sort(jnp.array([[10, 11, 12, 13, 14]])))
      [[10 12 11 13 14]]
    """
    check_arrays(speakers=(speakers, "int [B, T]"), mask=(mask, "bool [B, T]"))
    rows, length = mask.shape
    segments = one_per_row(rows, length) if segments is None else segments
    speakers = jnp.where(mask, speakers, 0)
    parties = speakers.max() + 1
    key = jnp.where(mask, segments.ids * parties + speakers, segments.count * parties)
    order = jnp.argsort(key, axis=1, stable=True).astype(jnp.int32)
    inverse = jnp.argsort(order, axis=1).astype(jnp.int32)
    sorted_key = jnp.take_along_axis(key, order, axis=1)
    changes = jnp.pad(sorted_key[:, 1:] != sorted_key[:, :-1], ((0, 0), (1, 0)))
    return PartyOrder(order, inverse, Segments(jnp.cumsum(changes, axis=1, dtype=jnp.int32), length))


@jax.custom_vjp
def _permuted(x: jax.Array, order: jax.Array, inverse: jax.Array) -> jax.Array:
    """Returns `x` `[B, T, ...]` in another order; its derivative is a permutation too, where JAX's would scatter."""
    return jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), axis=1)


def _permuted_forward(x, order, inverse):
    return _permuted(x, order, inverse), (order, inverse)


def _permuted_backward(saved, bar):
    order, inverse = saved
    return _permuted(bar, inverse, order), None, None


_permuted.defvjp(_permuted_forward, _permuted_backward)
