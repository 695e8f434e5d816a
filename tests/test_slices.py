"""Slices of buffers: those of NumPy, and still slices under `jax.vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import normal

from jmer.layers.slices import highest_of_all, put, take


@pytest.mark.parametrize("axis", [0, 1])
def test_are_those_of_numpy(axis):
    buffer, values = normal(0, 5, 6, 2), normal(1, *((2, 6, 2), (5, 2, 2))[axis])
    place = (slice(None),) * axis
    np.testing.assert_array_equal(take(buffer, 3, axis=axis), buffer[(*place, 3)])
    np.testing.assert_array_equal(take(buffer, 3, 2, axis=axis), buffer[(*place, slice(3, 5))])
    expected = buffer.copy()
    expected[(*place, slice(3, 5))] = values
    np.testing.assert_array_equal(put(buffer, values, 3, 2, axis=axis), expected)
    expected = buffer.copy()
    expected[(*place, 4)] = values[(*place, 0)]
    np.testing.assert_array_equal(put(buffer, values[(*place, 0)], 4, axis=axis), expected)


def change(buffer, values, start):
    return put(buffer, values + take(buffer, start), start)


def test_are_the_same_for_copies_and_copies_of_copies():
    buffers, values = normal(2, 3, 4, 5, 2), normal(3, 3, 4, 2)
    once = jax.vmap(change, (0, 0, None))
    twice = jax.vmap(once, (0, 0, None))
    found = jax.jit(twice)(buffers, values, 2)
    expected = buffers.copy()
    expected[:, :, 2] += values
    np.testing.assert_array_equal(found, expected)
    one_buffer = jax.vmap(change, (None, 0, None))(buffers[0, 0], values[0], 2)
    np.testing.assert_array_equal(one_buffer[:, 2], buffers[0, 0, 2] + values[0])
    program = jax.jit(twice).lower(buffers, values, 2).as_text()
    assert "dynamic_slice" in program and "dynamic_update_slice" in program
    assert "gather" not in program and "scatter" not in program


def test_one_number_for_all_copies():
    numbers = jnp.array([3, 7, 5])
    assert highest_of_all(numbers[0]) == 3
    np.testing.assert_array_equal(jax.vmap(highest_of_all, out_axes=None)(numbers), 7)
