"""Epochs on the device in pieces of bounded time, so that a signal never waits long for the end of one."""

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np

from jmer.data.packing import EpochPlan
from jmer.training.parallel import max_over_processes
from jmer.training.progress import StepResult

SHARE = 0.8
"""Of the time that a signal may wait, that pieces are planned to take: a step now and then takes longer."""


class Pieces:
    """Divides epochs into pieces, by how long the steps before have taken.

    A piece is the program of the whole epoch in which the other steps are left out: nothing is compiled for it, and the
    steps have the same bits.
    """

    def __init__(self, seconds: float):
        """Takes the time that a signal may wait; 0 = a step."""
        self._seconds = SHARE * seconds
        self._step_seconds: float | None = None

    def train(
        self, plan: EpochPlan, take: Callable[[EpochPlan], dict[int, StepResult]]
    ) -> Iterator[dict[int, StepResult]]:
        """Takes the steps of an epoch; all processes must do so together.

        Args:
          plan: of the epoch.
          take: takes the steps of a piece, given its plan; returns the results of the runs that had any.

        Yields:
          The results of the runs since it yielded last: when the time is over, a step of a run was not finite, or the
          epoch is at its end.
        """
        left = np.flatnonzero(plan.computed)
        while left.size:
            began = time.perf_counter()
            results: dict[int, StepResult] = {}
            count = max(1, self._fitting(len(left), 0.0))
            while count:
                piece, left = left[:count], left[count:]
                started = time.perf_counter()
                results |= take(_only(plan, piece))
                # The first step of all is compiled meanwhile; the next one tells its time.
                now = time.perf_counter()
                self._step_seconds = (now - started) / len(piece)
                unbroken = all(result.metrics.finite for result in results.values())
                count = self._fitting(len(left), now - began) if left.size and unbroken else 0
            yield results

    def _fitting(self, left: int, spent: float) -> int:
        """Returns how many of the steps that are left fit into what is left of the time, in all processes."""
        if self._step_seconds is None:
            return 0
        fitting = int(min(left, max(0.0, self._seconds - spent) / self._step_seconds))
        return -max_over_processes(-fitting)


def _only(plan: EpochPlan, steps: np.ndarray) -> EpochPlan:
    """Returns a plan without all other steps."""
    kept = np.zeros(len(plan.computed), bool)
    kept[steps] = True
    return dataclasses.replace(plan, computed=plan.computed & kept, active=plan.active & kept)
