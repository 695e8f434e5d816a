"""What a computation of low precision leaves in float32: exponentials and their sums, and the states of long loops."""

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """Returns an array in float32, or as it is if its type is more precise."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def softmax(scores: jax.Array, *, axis: int = -1, where: jax.Array | None = None) -> jax.Array:
    """Returns `jax.nn.softmax`, computed in float32 at least, in the type of the scores."""
    return jax.nn.softmax(at_least_float32(scores), axis=axis, where=where).astype(scores.dtype)
