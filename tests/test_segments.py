"""What segments say of rows that were cut by hand, and that a row's conversations come out as they do alone."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import normal

from jmer.batch import Batch
from jmer.segments import Segments, one_per_row

# Conversations of 2, 3 and 1 utterances and one place of padding; then one of 4 and padding.
IDS = np.array([[0, 0, 1, 1, 1, 2, 2], [0] * 7], np.int32)
MASK = np.array([[1] * 6 + [0], [1] * 4 + [0] * 3], bool)
SEGMENTS = Segments(jnp.array(IDS), 3)
PARTS = {(0, 0): slice(0, 2), (0, 1): slice(2, 5), (0, 2): slice(5, 6), (1, 0): slice(0, 4)}


def test_borders_and_positions():
    np.testing.assert_array_equal(SEGMENTS.starts(), [[1, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(SEGMENTS.ends(), [[0, 1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(SEGMENTS.positions(), [[0, 1, 0, 1, 2, 0, 1], range(7)])


def test_pairs_and_members():
    same, members = SEGMENTS.same_segment(), SEGMENTS.membership()
    for b, i, j in np.ndindex(2, 7, 7):
        assert same[b, i, j] == (IDS[b, i] == IDS[b, j])
    for b, k, i in np.ndindex(2, 3, 7):
        assert members[b, k, i] == (IDS[b, i] == k)


def test_means_are_of_real_positions_alone():
    x = np.where(MASK[..., None], normal(1, 2, 7, 4), np.nan)
    means = SEGMENTS.mean(jnp.array(x), jnp.array(MASK))
    for row, conversation in np.ndindex(2, 3):
        expected = x[row, PARTS[row, conversation]].mean(0) if (row, conversation) in PARTS else np.zeros(4)
        np.testing.assert_allclose(means[row, conversation], expected, rtol=1e-5, atol=1e-6)
    there = MASK & (np.arange(7) != 5)[None]
    np.testing.assert_array_equal(SEGMENTS.any(jnp.array(there)), [[True, True, False], [True, False, False]])


def test_what_a_conversation_has_is_spread_to_its_positions():
    values = normal(2, 2, 3, 4)
    broadcast = SEGMENTS.broadcast(values)
    for b, t in np.ndindex(2, 7):
        np.testing.assert_array_equal(broadcast[b, t], values[b, IDS[b, t]])
    alone = one_per_row(2, 7)
    np.testing.assert_array_equal(alone.broadcast(values[:, :1]), np.repeat(values[:, :1], 7, axis=1))
    assert alone.same_segment().all() and alone.membership().shape == (2, 1, 7)


def test_segment_ids_need_conversation_ids():
    batch = Batch(features={}, mask=MASK, labels=None, speakers=None, available={}, segment_ids=IDS)
    with pytest.raises(ValueError, match=r"conversation_ids: expected int \[B, K\] with segment_ids, got None"):
        _ = batch.segments
    segments = batch.replace(conversation_ids=np.zeros((2, 3), np.int32)).segments
    assert segments.count == 3 and segments.ids is IDS
