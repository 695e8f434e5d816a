"""Sinusoidal positions against their formula, one entry at a time."""

import math

import numpy as np
import pytest

from jmer.layers.positions import sinusoidal_positions


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


def test_far_positions_keep_their_digits():
    np.testing.assert_allclose(sinusoidal_positions(100_001, 4)[-1, :2], [math.sin(1e5), math.cos(1e5)], rtol=1e-6)
