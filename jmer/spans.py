"""Work on as much of an array as matters, which is known only when the program runs."""

from collections.abc import Callable
from typing import Any

import jax

# How finely that part is rounded up, and the fewest rows that are worth a size of their own; each size is compiled. An
# accelerator's time hardly depends on it.
CPU_SPANS = 4
CPU_ROWS = 16


def spans(total: int) -> int:
    """Returns into how many spans `total` rows are divided: 1 = always computed whole."""
    return max(1, min(CPU_SPANS, total // CPU_ROWS)) if jax.default_backend() == "cpu" else 1


def over_spans(function: Callable, count: jax.Array, arrays: Any, *others: Any) -> Any:
    """Applies `function` to the first spans of the leading axis of some arrays.

    Args:
      function: takes arrays like `arrays` and `others`, or shorter; its result's shape may not depend on how long they
        are, and its value not on rows after those that matter.
      count: int32, how many rows of `arrays` matter.
      arrays: tree of arrays `[N, ...]`.
      others: trees of arrays `[N', ...]`, of which the same share is taken.
    """
    total = jax.tree.leaves(arrays)[0].shape[0]
    parts = spans(total)
    if parts == 1:
        return function(arrays, *others)

    def first(k):
        return lambda *arrays: function(*jax.tree.map(lambda x: x[: -(-x.shape[0] * k // parts)], arrays))

    number = -(-highest_of_all(count) * parts // total)
    return jax.lax.switch(number - 1, [first(k) for k in range(1, parts + 1)], arrays, *others)


@jax.custom_batching.custom_vmap
def highest_of_all(number: jax.Array) -> jax.Array:
    """Returns `number`, and under `jax.vmap` the highest of its copies for all of them.

    A loop or a branch that has one number for all copies stays one; with several, it would be taken for each of them.
    """
    return number


@highest_of_all.def_vmap
def _highest(axis_size: int, in_batched: list[bool], number: jax.Array) -> tuple[jax.Array, bool]:
    return highest_of_all(number.max(0) if in_batched[0] else number), False
