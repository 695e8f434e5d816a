"""Conversations laid end to end in a few lanes, so that a recurrence takes no steps over padding.

A recurrence over padded conversations runs as long as the longest and spends most of its work on the padding of the
others. In lanes, the next conversation of a lane begins where the one before it ends.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jmer.spans import highest_of_all

# Products with this many rows run near a processor core's peak; fewer, fuller lanes mean less idling. An accelerator
# rather needs few steps: one conversation per lane.
CPU_LANES = 8


@struct.dataclass
class Lanes:
    """Where each utterance of a padded batch goes, and back.

    Attributes:
      source: int32 `[S, R]`, the utterance (`conversation * T + position`) that lane `r` has at its step `s`, or
        `B * T` where the lane is empty.
      place: int32 `[B, T]`, that step and lane (`s * R + r`), or `S * R` for padding.
      steps: int32, after how many steps all lanes are empty, also over the copies of a batch under `jax.vmap`.
    """

    source: jax.Array
    place: jax.Array
    steps: jax.Array

    def spread(self, x: jax.Array) -> jax.Array:
        """Brings `x` `[B, T, ...]` into lanes, `[S, R, ...]`, zero where a lane is empty."""
        return _pick(x, self.source)

    def collect(self, y: jax.Array) -> jax.Array:
        """Brings `y` `[S, R, ...]` back to `[B, T, ...]`, zero where a conversation is padded."""
        return _pick(y, self.place)


def lay_out(lengths: jax.Array, length: int) -> Lanes:
    """Distributes conversations over lanes, the longest first, each to the lane that ends first.

    Args:
      lengths: int32 `[B]`, utterances per conversation.
      length: `T`, the padded length.

    Returns:
      Lanes for `S = ceil(B / R) * T` steps, the most that are ever needed; `R` depends on the backend.
    """
    batch = lengths.shape[0]
    count = min(batch, CPU_LANES) if jax.default_backend() == "cpu" else batch
    start, lane, ends = _distribute(lengths, count)
    steps, positions = -(-batch // count) * length, jnp.arange(length)
    place = (start[:, None] + positions[None]) * count + lane[:, None]
    place = jnp.where(positions[None] < lengths[:, None], place, steps * count)
    source = jnp.full(steps * count, batch * length, jnp.int32)
    source = source.at[place.reshape(-1)].set(jnp.arange(batch * length, dtype=jnp.int32), mode="drop")
    return Lanes(source.reshape(steps, count), place, highest_of_all(ends.max()))


def _distribute(lengths: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns where each conversation starts, `[B]`, in which lane, `[B]`, and where the lanes end, `[R]`."""
    batch = lengths.shape[0]
    if count == batch:
        return jnp.zeros_like(lengths), jnp.arange(batch), lengths
    order, at_most = jnp.argsort(-lengths), -(-batch // count)

    def put(i, carry):
        start, lane, ends, held = carry
        conversation = order[i]
        chosen = jnp.argmin(jnp.where(held < at_most, ends, jnp.iinfo(ends.dtype).max))
        start, lane = start.at[conversation].set(ends[chosen]), lane.at[conversation].set(chosen)
        return start, lane, ends.at[chosen].add(lengths[conversation]), held.at[chosen].add(1)

    empty, none = jnp.zeros(count, lengths.dtype), jnp.zeros_like(lengths)
    start, lane, ends, _ = jax.lax.fori_loop(0, batch, put, (none, none, empty, empty))
    return start, lane, ends


def _pick(values: jax.Array, chosen: jax.Array) -> jax.Array:
    return jnp.take(values.reshape(-1, *values.shape[2:]), chosen, axis=0, mode="fill", fill_value=0)
