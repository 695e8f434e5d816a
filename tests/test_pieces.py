"""Epochs on the device are divided into pieces that take as long as a signal may wait, and no more of them."""

import dataclasses
import types

import numpy as np
import pytest

from jmer.data.packing import EpochPlan
from jmer.training import pieces
from jmer.training.pieces import SHARE, Pieces

GRACE = 10.0


@dataclasses.dataclass
class Clock:
    """A clock that stands still unless it is moved."""

    now: float = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def epoch(monkeypatch):
    """Returns a function that trains an epoch and returns the sizes of its pieces, in tuples, one for each yield."""
    clock = Clock()
    monkeypatch.setattr(pieces, "time", clock)

    def train(cutter, steps, seconds, before=0, broken=None):
        active = np.arange(steps) >= before
        plan = EpochPlan(np.zeros((steps, 1, 1), np.int32), active, active)
        taken, sizes, found = [], [], []

        def take(piece):
            numbers = np.flatnonzero(piece.active)
            np.testing.assert_array_equal(piece.active, piece.computed)
            taken.extend(numbers)
            sizes.append(len(numbers))
            clock.now += sum(seconds(step) for step in numbers)
            return {0: types.SimpleNamespace(metrics=types.SimpleNamespace(finite=broken not in numbers))}

        for _ in cutter.train(plan, take):
            found.append(tuple(sizes))
            sizes.clear()
        assert taken == list(range(before, steps))
        return found

    return train


def test_an_ordinary_epoch_is_one_piece_when_its_program_is_compiled(epoch):
    cutter = Pieces(GRACE)
    assert epoch(cutter, 20, lambda step: 0.1 if step else 30.0) == [(1,), (1, 18)]
    for _ in range(3):
        assert epoch(cutter, 20, lambda step: 0.1) == [(20,)]


def test_a_short_first_epoch_ends_before_anything_looks_for_signals(epoch):
    assert epoch(Pieces(GRACE), 20, lambda step: 0.01 if step else 1.0) == [(1, 7, 12)]


def test_a_long_epoch_is_divided_by_the_time_that_is_permitted(epoch):
    cutter = Pieces(GRACE)
    fitting = int(SHARE * GRACE / 0.5)
    assert epoch(cutter, 40, lambda step: 0.5) == [(1, fitting - 1), (fitting,), (40 - 2 * fitting,)]
    assert epoch(cutter, 40, lambda step: 0.5, before=30) == [(10,)]
    # Half as fast from now on: one piece takes too long, the others do not.
    assert epoch(cutter, 40, lambda step: 1.0) == [(fitting,), (fitting // 2,), (fitting // 2,), (40 - 2 * fitting,)]


@pytest.mark.parametrize(("grace", "expected"), [(0.0, [(1,)] * 4), (0.01, [(1,)] * 4), (np.inf, [(1, 3)])])
def test_the_least_and_the_longest_time(epoch, grace, expected):
    assert epoch(Pieces(grace), 4, lambda step: 0.5) == expected


def test_a_step_that_is_not_finite_is_told_at_once(epoch):
    assert epoch(Pieces(GRACE), 20, lambda step: 0.1, broken=0) == [(1,), (19,)]


def test_the_slowest_process_gives_the_size(epoch, monkeypatch):
    asked = []
    monkeypatch.setattr(pieces, "max_over_processes", lambda number: asked.append(number) or max(number, -2))
    assert epoch(Pieces(GRACE), 6, lambda step: 0.1) == [(1, 2, 2, 1)]
    assert asked == [-5, -3, -1]
