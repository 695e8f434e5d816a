"""Several copies of a layer at once, each with parameters of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn


def stacked(
    module: nn.Module,
    *,
    in_axes: int | Sequence[int | None] | None = 0,
    shared: bool = False,
    size: int | None = None,
) -> Callable[..., Any]:
    """Returns a call of a layer that runs one copy of it for each entry of the arguments' leading axes, all at once.

    Parameters, running statistics and outputs get a leading axis; keyword arguments are the same for all copies.

    Args:
      module: the layer, named in the module that calls it.
      in_axes: for each positional argument, the axis that its copies have, or None where all have the same.
      shared: True = the copies share their parameters.
      size: number of copies; None = as the arguments have.
    """

    def call(*arguments: Any, **options: Any) -> Any:
        return nn.vmap(
            lambda module, *arguments: module(*arguments, **options),
            in_axes=in_axes,
            variable_axes={"params": None if shared else 0, "batch_stats": 0},
            split_rngs={"params": not shared, "dropout": True},
            axis_size=size,
        )(module, *arguments)

    return call


def unstacked(x: jax.Array, axis: int = 0) -> tuple[jax.Array, ...]:
    """Returns the entries along an axis, without it.

    The derivative of indexing is an array padded with zeros for each entry, all of which are added up; that of this
    function is a concatenation.
    """
    return tuple(entry.squeeze(axis) for entry in jax.lax.split(x, (1,) * x.shape[axis], axis))
