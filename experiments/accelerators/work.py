"""What a compiled program does: operations and collectives, outside its loops and inside."""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Work(NamedTuple):
    """What a sequence of instructions does once, without its loops, and those loops.

    Attributes:
      operations: kernels on a GPU, operations (mostly fusions) on a TPU.
      launches: what the host starts on a GPU: a CUDA graph counts once, whatever it contains; elsewhere `operations`.
      cycles: as the TPU's compiler estimates them; elsewhere 0.
      collectives: sums and the like over devices.
      loops: in order.
    """

    operations: int = 0
    launches: int = 0
    cycles: int = 0
    collectives: int = 0
    loops: Sequence["Loop"] = ()

    def plus(self, other: "Work") -> "Work":
        """Returns the work of both, one after the other."""
        return Work(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Loop(NamedTuple):
    """A loop: its number of steps, None if it is not known before it runs, and what each of them does."""

    steps: int | None
    body: Work


def total(work: Work) -> Work:
    """Returns the work with every loop's body times its steps, once if they are not known; it has no loops."""
    parts = [work._replace(loops=())]
    for loop in work.loops:
        body = total(loop.body)
        parts.append(Work(*(_times(loop) * count for count in body[:-1])))
    return Work(*map(sum, zip(*(part[:-1] for part in parts), strict=True)))


def in_loops(work: Work) -> Work:
    """Returns what is in loops, times their steps."""
    return total(Work(loops=work.loops))


def heaviest(branches: Sequence[Work]) -> Work:
    """Returns the branch of a conditional that has most to do."""
    return max(branches, key=lambda work: total(work)[:-1])


def loop_counts(work: Work) -> list[tuple[int, int | None]]:
    """Returns (number of loops, steps of each), the longest first; an inner loop counts as often as it begins."""
    counted = collections.Counter(_steps(work))
    return [(counted[steps], steps) for steps in sorted(counted, key=lambda steps: steps or 0, reverse=True)]


def _steps(work: Work) -> Iterator[int | None]:
    for loop in work.loops:
        yield loop.steps
        for _ in range(_times(loop)):
            yield from _steps(loop.body)


def _times(loop: Loop) -> int:
    return 1 if loop.steps is None else loop.steps


def step_of_epoch(work: Work, steps: int) -> Work:
    """Returns a training step of an epoch's program: the body of the loop over its steps that does most.

    Raises:
      ValueError: if no loop has so many steps.
    """
    loops = [loop for loop in work.loops if loop.steps == steps]
    if not loops:
        raise ValueError(f"no loop of {steps} steps, only {[loop.steps for loop in work.loops]}")
    return max(loops, key=lambda loop: total(loop.body).operations).body
