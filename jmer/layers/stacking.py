"""Several copies of a module at once, each with parameters of its own."""

from collections.abc import Sequence

import jax
from flax import linen as nn


def stacked(
    module: type[nn.Module],
    *,
    in_axes: int | Sequence[int | None] | None = 0,
    shared: bool = False,
    size: int | None = None,
):
    """Returns a module that runs `module` once for each entry of its inputs' first axis, all at the same time.

    Parameters, running statistics and outputs get a leading axis.

    Args:
      module: the class of a Linen module; what comes back is constructed like it.
      in_axes: for each positional argument of a call, 0 where it has the leading axis, None where all copies see one.
      shared: True = the copies share their parameters.
      size: number of copies; None = as the inputs have.
    """
    return nn.vmap(
        module,
        in_axes=in_axes,
        variable_axes={"params": None if shared else 0, "batch_stats": 0},
        split_rngs={"params": not shared, "dropout": True},
        axis_size=size,
    )


def unstacked(x: jax.Array, axis: int = 0) -> tuple[jax.Array, ...]:
    """Returns the entries of an axis, without it.

    What is indexed one by one has a derivative of padded arrays, one for each entry, that are added up; this one's is a
    concatenation.
    """
    return tuple(entry.squeeze(axis) for entry in jax.lax.split(x, (1,) * x.shape[axis], axis))
