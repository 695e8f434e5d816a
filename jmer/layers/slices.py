"""Slices of the buffers that loops carry, at one index for all copies under `jax.vmap`.

JAX turns such slices into gathers and scatters under `jax.vmap`, which check each place and are several operations;
here the mapped axis is one more axis of the buffer.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def take(buffer: jax.Array, start: jax.Array, size: int | None = None, *, axis: int = 0) -> jax.Array:
    """Returns `size` entries of an axis from `start` on (one number for all copies); None = one, without the axis."""
    entries = _taking(axis, size or 1)(buffer, start)
    return entries.squeeze(axis) if size is None else entries


def put(buffer: jax.Array, values: jax.Array, start: jax.Array, size: int | None = None, *, axis: int = 0) -> jax.Array:
    """Returns the buffer with `values` where `take` reads."""
    return _putting(axis)(buffer, jnp.expand_dims(values, axis) if size is None else values, start)


@functools.cache
def _taking(axis: int, size: int) -> Callable[..., jax.Array]:
    @jax.custom_batching.custom_vmap
    def entries(buffer, start):
        return jax.lax.dynamic_slice_in_dim(buffer, start, size, axis)

    @entries.def_vmap
    def _(axis_size, in_batched, buffer, start):
        return _taking(axis + 1, size)(buffer, start), True

    return entries


@functools.cache
def _putting(axis: int) -> Callable[..., jax.Array]:
    @jax.custom_batching.custom_vmap
    def changed(buffer, values, start):
        return jax.lax.dynamic_update_slice_in_dim(buffer, values, start, axis)

    @changed.def_vmap
    def _(axis_size, in_batched, buffer, values, start):
        buffer, values = (
            x if batched else jnp.broadcast_to(x[None], (axis_size, *x.shape))
            for x, batched in ((buffer, in_batched[0]), (values, in_batched[1]))
        )
        return _putting(axis + 1)(buffer, values, start), True

    return changed


@jax.custom_batching.custom_vmap
def highest_of_all(number: jax.Array) -> jax.Array:
    """Returns `number`, and under `jax.vmap` the highest of its copies for all of them.

    A loop that has one number of steps for all copies stays one; with several, it would be taken for each of them.
    """
    return number


@highest_of_all.def_vmap
def _(axis_size: int, in_batched: list[bool], number: jax.Array) -> tuple[jax.Array, bool]:
    return highest_of_all(number.max(0) if in_batched[0] else number), False
