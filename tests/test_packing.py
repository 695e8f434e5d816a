"""Packed batches hold every conversation once, whole and apart, all in one shape, whichever conversations meet."""

import itertools

import numpy as np
import pytest
from test_batching import WIDTHS, conversation, split

from jmer.data.batching import batches, locate, real_fraction
from jmer.data.packing import Packing, make_packing, plan_packed, steps_per_epoch
from jmer.errors import UserError

CHOSEN = [None, np.arange(0, 23, 2), np.array([5]), np.arange(0)]


def shape_and_plan(conversations, batch_size, chosen=None, seed=0, epoch=0, pack=True):
    packing = make_packing(conversations, batch_size=batch_size, pack=pack)
    options = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "subset": chosen}
    return packing, plan_packed(conversations, packing, **options)


@pytest.mark.parametrize("chosen", CHOSEN, ids=["all", "some", "one", "none"])
@pytest.mark.parametrize(("batch_size", "seed"), list(itertools.product((1, 4, 7, 23, 40), (None, 3))))
def test_every_conversation_comes_once_and_fits(batch_size, seed, chosen):
    conversations = split()
    for pack, epoch in itertools.product((True, False), range(3)):
        packing, plan = shape_and_plan(conversations, batch_size, chosen, seed, epoch, pack)
        positions = np.arange(23) if chosen is None else chosen
        assert len(plan) == steps_per_epoch(len(positions), batch_size)
        assert sorted(m for batch in plan for m in batch.conversation_ids.flat if m >= 0) == positions.tolist()
        counts = [np.count_nonzero(batch.conversation_ids >= 0) for batch in plan]
        assert max(counts, default=0) <= batch_size and max(counts, default=0) - min(counts, default=0) <= 1
        for batch in plan:
            assert batch.conversation_ids.shape == (packing.rows, packing.slots) and batch.length == packing.length
            assert batch.conversation_ids.dtype == np.int32
            for row in batch.conversation_ids:
                assert sum(len(conversations[i]) for i in row if i >= 0) <= packing.length


@pytest.mark.parametrize("batch_size", [1, 4, 23])
def test_batches_hold_each_conversation_whole_and_apart(batch_size):
    conversations = split()
    packing = make_packing(conversations, batch_size=batch_size)
    for multiple in (1, 4):
        for batch in batches(
            conversations, WIDTHS, batch_size=batch_size, packing=packing, row_multiple=multiple, seed=1
        ):
            rows = -(-packing.rows // multiple) * multiple
            assert batch.mask.shape == (rows, packing.length) and batch.conversation_ids.shape == (rows, packing.slots)
            held = np.zeros(batch.mask.shape, bool)
            for position, row, slot, real in locate(batch.conversation_ids, conversations):
                c = conversations[position]
                assert not held[row, real].any() and len(held[row, real]) == len(c)
                held[row, real] = True
                assert batch.conversation_ids[row, slot] == position and (batch.segment_ids[row, real] == slot).all()
                np.testing.assert_array_equal(batch.labels[row, real], c.labels)
                assert batch.speakers[row, real.start] == 0
                for m in WIDTHS:
                    np.testing.assert_array_equal(batch.features[m][row, real], c.features[m])
                    np.testing.assert_array_equal(batch.available[m][row, real], c.available[m])
            np.testing.assert_array_equal(batch.mask, held)
            assert (batch.labels[~held] == -1).all() and (batch.speakers[~held] == -1).all()
            assert (np.diff(batch.segment_ids, axis=1) >= 0).all()


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        _, plan = shape_and_plan(split(60), 4, seed=seed, epoch=epoch)
        return [batch.conversation_ids.tolist() for batch in plan]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    pairs = [
        {pair for batch in order(0, epoch) for pair in itertools.combinations(sorted(itertools.chain(*batch)), 2)}
        for epoch in range(5)
    ]
    assert all(len(one & other) < len(one) / 2 for one, other in itertools.combinations(pairs, 2))


def test_an_interrupted_epoch_resumes_at_any_batch():
    conversations = split()
    packing = make_packing(conversations, batch_size=4)
    options = {"batch_size": 4, "packing": packing, "seed": 1, "epoch": 2}
    whole = [batch.conversation_ids.tolist() for batch in batches(conversations, WIDTHS, **options)]
    for start in range(len(whole) + 1):
        rest = batches(conversations, WIDTHS, start=start, **options)
        assert [batch.conversation_ids.tolist() for batch in rest] == whole[start:]


def test_the_shape_holds_every_epoch_of_a_curriculum():
    conversations = split(60, longest=30)
    stages = [np.arange(10), np.arange(5, 35), np.arange(60)]
    packing = make_packing(conversations, batch_size=8, subsets=stages)
    for chosen, seed in itertools.product(stages, range(5)):
        plan = plan_packed(conversations, packing, batch_size=8, seed=seed, subset=chosen)
        for batch in plan:
            assert all(
                sum(len(conversations[i]) for i in row if i >= 0) <= packing.length for row in batch.conversation_ids
            )


def test_shapes_found_by_hand():
    # Strata of two: 9 and 8, 5 and 5, 4 and 3, 2 and 1; the tallest are 9, 5, 4 and 2.
    conversations = [conversation(str(i), n) for i, n in enumerate([5, 9, 1, 4, 8, 2, 3, 5])]
    assert make_packing(conversations, batch_size=4) == Packing(rows=2, slots=2, length=11)
    assert make_packing(conversations, batch_size=4, pack=False) == Packing(rows=4, slots=1, length=9)
    plan = plan_packed(conversations, Packing(2, 2, 11), batch_size=4)
    assert [batch.conversation_ids.tolist() for batch in plan] == [[[1, 5], [0, 3]], [[4, 2], [7, 6]]]


def test_packing_raises_the_useful_share():
    conversations = split(400, longest=40)
    packing = make_packing(conversations, batch_size=16)
    packed = real_fraction(batches(conversations, WIDTHS, batch_size=16, packing=packing, seed=0))
    assert packed > 0.9 > 0.6 > real_fraction(batches(conversations, WIDTHS, batch_size=16, seed=0))


@pytest.mark.parametrize("packing", [Packing(1, 4, 60), Packing(9, 1, 12), Packing(4, 2, 4)])
def test_a_shape_that_does_not_fit_is_refused(packing):
    with pytest.raises(ValueError, match="does not hold these conversations"):
        plan_packed(split(), packing, batch_size=12)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(UserError, match="batch_size is 0: give at least 1"):
        make_packing(split(), batch_size=0)
