"""Dropout keyed by conversation: the same mask wherever a conversation is computed."""

import jax
import numpy as np
import pytest
from reference import normal

from jmer.layers.dropout import ConversationDropout, keep_mask

RATE = 0.3
INDEX = np.array([5, 0, 12, 3, 8, 1, 2, 40])


def dropped(x, key, row_ids=None, rate=RATE):
    return ConversationDropout(rate).apply({}, x, train=True, row_ids=row_ids, rngs={"dropout": key})


def test_rate_and_scaling(key):
    x = np.ones((8, 40, 50), np.float32)
    out = np.asarray(dropped(x, key()))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1) / np.float32(1 - RATE)}
    for share in ((out == 0).mean((1, 2)), (out == 0).mean()):
        np.testing.assert_allclose(share, RATE, atol=5 * np.sqrt(RATE * (1 - RATE) / 2000))
    other = normal(0, 8, 40, 50)
    k = key()
    np.testing.assert_allclose(dropped(other, k), other * dropped(x, k), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1001,), (7, 401), (5, 3, 200)])
def test_entries_are_kept_independently(key, rate, shape):
    """Of the two entries of a word, of neighbours, and of two keys, none tells of the other."""
    keep = np.asarray(jax.vmap(lambda k: keep_mask(k, shape, rate))(jax.random.split(key(), 200)))
    words = -(-shape[-1] // 2)
    first, second = keep[..., : shape[-1] - words], keep[..., words:]
    for one, other in ((first, second), (keep[..., 1:], keep[..., :-1]), (keep[1:], keep[:-1])):
        for share, probability in ((one.mean(), 1 - rate), ((one & other).mean(), (1 - rate) ** 2)):
            deviation = np.sqrt(probability * (1 - probability) / one.size)
            # Overlapping pairs of neighbours depend on each other.
            np.testing.assert_allclose(share, probability, atol=8 * deviation)


def test_the_finest_rates(key):
    """A rate is kept to 2^-16, and never becomes another one's."""
    for rate, share in ((2**-16, 2**-16), (2**-18, 0.0), (1 - 2**-18, 1.0)):
        dropped_share = 1 - np.asarray(keep_mask(key(), (4000, 4000), rate)).mean()
        np.testing.assert_allclose(dropped_share, share, atol=6 * np.sqrt(2**-16 / 16e6))


def test_a_number_per_conversation(key):
    out = np.asarray(dropped(np.ones(4000, np.float32), key(), rate=0.5))
    assert set(np.unique(out)) == {0.0, 2.0}
    np.testing.assert_allclose((out == 0).mean(), 0.5, atol=0.05)


def test_off_in_evaluation_and_at_rate_zero(key):
    x = normal(0, 8, 4, 3)
    np.testing.assert_array_equal(ConversationDropout(RATE).apply({}, x, train=False), x)
    np.testing.assert_array_equal(dropped(x, key(), rate=0.0), x)


def test_a_conversations_mask_does_not_depend_on_the_rows_beside_it(key):
    x, k = np.ones((8, 6, 10), np.float32), key()
    whole = dropped(x, k, INDEX)
    for rows in ([3], [7, 0], [4, 5, 6, 1]):
        np.testing.assert_array_equal(dropped(x[rows], k, INDEX[rows]), whole[np.array(rows)])
    np.testing.assert_array_equal(dropped(x, k), dropped(x, k, np.arange(8)))


def test_a_conversations_mask_does_not_depend_on_its_padding(key):
    x, k = np.ones((8, 6, 10), np.float32), key()
    longer = np.ones((8, 9, 10), np.float32)
    np.testing.assert_array_equal(dropped(longer, k, INDEX)[:, :6], dropped(x, k, INDEX))


def test_masks_differ_between_conversations_and_keys(key):
    x, k = np.ones((8, 6, 10), np.float32), key()
    masks = np.asarray(dropped(x, k, INDEX) == 0).reshape(8, -1)
    assert len({mask.tobytes() for mask in masks}) == 8
    assert not np.array_equal(masks, np.asarray(dropped(x, key(), INDEX) == 0).reshape(8, -1))


def test_the_same_on_eight_devices(key):
    x, k = normal(1, 8, 6, 10), key()
    over_devices = jax.pmap(dropped, in_axes=(0, None, 0))(x[:, None], k, INDEX[:, None])
    np.testing.assert_array_equal(over_devices[:, 0] == 0, dropped(x, k, INDEX) == 0)
    np.testing.assert_allclose(over_devices[:, 0], dropped(x, k, INDEX), rtol=1e-6)
