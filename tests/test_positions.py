"""Sinusoidal positions against their formula, one entry at a time."""

import math

import numpy as np
import pytest

from jmer.layers.positions import sinusoidal_positions
from jmer.segments import Segments, one_per_row


@pytest.mark.parametrize(("length", "width"), [(1, 2), (7, 6), (110, 16), (5, 7)])
def test_each_entry_is_the_formulas(length, width):
    expected = np.zeros((length, width))
    for position in range(length):
        for pair in range(math.ceil(width / 2)):
            angle = position / 10000 ** (2 * pair / width)
            expected[position, 2 * pair] = math.sin(angle)
            if 2 * pair + 1 < width:
                expected[position, 2 * pair + 1] = math.cos(angle)
    found = sinusoidal_positions(length, width)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_positions_begin_anew_with_each_conversation():
    ids = np.array([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 1]], np.int32)
    table = np.asarray(sinusoidal_positions(6, 4))
    found = sinusoidal_positions(6, 4, segments=Segments(ids, 3))
    np.testing.assert_array_equal(found, table[np.array([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]])])
    alone = sinusoidal_positions(6, 4, segments=one_per_row(2, 6))
    np.testing.assert_array_equal(alone, np.stack([table, table]))


def test_far_positions_keep_their_digits():
    np.testing.assert_allclose(sinusoidal_positions(100_001, 4)[-1, :2], [math.sin(1e5), math.cos(1e5)], rtol=1e-6)
