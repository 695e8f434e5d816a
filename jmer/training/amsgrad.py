"""AMSGrad (Reddi et al., 2018) as PyTorch computes it, which Optax does not."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AmsgradState(NamedTuple):
    """The state of `scale_by_amsgrad`.

    Attributes:
      steps: int32, updates so far.
      first: first moment of each parameter.
      second: second moment.
      largest: the largest second moment so far.
    """

    steps: jax.Array
    first: Any
    second: Any
    largest: Any


def scale_by_amsgrad(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Returns Adam's scaling of gradients with the largest second moment so far in place of the present one.

    As in PyTorch the largest moment is corrected for its bias after the maximum is taken; Optax corrects before, so
    that the first gradient, whose correction is the greatest, holds every later step back.

    Args:
      b1, b2: decay of the moments.
      eps: added to the root of the corrected second moment.
    """

    def init(params: Any) -> AmsgradState:
        # Arrays of their own each: the step takes the memory of all of them.
        first, second, largest = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
        return AmsgradState(jnp.zeros((), jnp.int32), first, second, largest)

    def update(updates: Any, state: AmsgradState, params: Any = None) -> tuple[Any, AmsgradState]:
        steps = optax.safe_increment(state.steps)
        first = optax.tree.update_moment(updates, state.first, b1, 1)
        second = optax.tree.update_moment(updates, state.second, b2, 2)
        largest = jax.tree.map(jnp.maximum, state.largest, second)
        scaled = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + eps),
            optax.tree.bias_correction(first, b1, steps),
            optax.tree.bias_correction(largest, b2, steps),
        )
        return scaled, AmsgradState(steps, first, second, largest)

    return optax.GradientTransformation(init, update)
