"""Batches hold every utterance once, whole and in place, in an order that the seed and the epoch determine."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from jmer.data.batching import batches, bucket_lengths, plan_padded, real_fraction
from jmer.data.corpus import Conversation
from jmer.data.packing import steps_per_epoch
from jmer.errors import UserError

WIDTHS = {"text": 3, "audio": 2}


def conversation(name, length):
    rng = np.random.default_rng([int(name), length])
    available = {m: rng.random(length) < 0.8 for m in WIDTHS}
    return Conversation(
        id=name,
        utterances=[f"{name}_{i}" for i in range(length)],
        speakers=[["Zoë", "Al", "Cy"][i] for i in rng.integers(0, 3, length)],
        labels=rng.integers(-1, 4, length).astype(np.int32),
        features={
            m: rng.normal(size=(length, d)).astype(np.float32) * available[m][:, None] for m, d in WIDTHS.items()
        },
        available=available,
        sentences=[""] * length,
    )


def split(count=23, longest=12, seed=0):
    rng = np.random.default_rng(seed)
    return [conversation(str(i), int(n)) for i, n in enumerate(rng.integers(1, longest + 1, count))]


def reference_speakers(names):
    seen = []
    for name in names:
        if name not in seen:
            seen.append(name)
    return [seen.index(name) for name in names]


def assert_holds(batch, row, c):
    n = len(c)
    np.testing.assert_array_equal(batch.mask[row], np.arange(batch.mask.shape[1]) < n)
    np.testing.assert_array_equal(batch.labels[row, :n], c.labels)
    assert (batch.labels[row, n:] == -1).all()
    np.testing.assert_array_equal(batch.speakers[row, :n], reference_speakers(c.speakers))
    assert (batch.speakers[row, n:] == -1).all()
    for m in WIDTHS:
        np.testing.assert_array_equal(batch.features[m][row, :n], c.features[m])
        np.testing.assert_array_equal(batch.available[m][row, :n], c.available[m])
        assert not batch.features[m][row, n:].any()
        assert not batch.available[m][row, n:].any()


@pytest.mark.parametrize(
    ("batch_size", "multiple", "seed", "lengths"),
    list(itertools.product((1, 4, 23, 40), (1, 8), (None, 3), ((), (4, 12)))),
)
def test_every_conversation_comes_once_and_whole(batch_size, multiple, seed, lengths):
    conversations = split()
    got = list(batches(conversations, WIDTHS, batch_size=batch_size, row_multiple=multiple, seed=seed, lengths=lengths))
    assert len(got) == steps_per_epoch(len(conversations), batch_size)
    seen = []
    for batch in got:
        assert batch.mask.shape[0] == -(-batch_size // multiple) * multiple
        for row, position in enumerate(batch.row_ids):
            if position < 0:
                assert not batch.mask[row].any()
            else:
                seen.append(position)
                assert_holds(batch, row, conversations[position])
    assert sorted(seen) == list(range(len(conversations)))
    if seed is None:
        held = [[len(conversations[i]) for i in batch.row_ids if i >= 0] for batch in got]
        assert all(max(shorter) <= min(longer) for shorter, longer in itertools.pairwise(held))


def test_leaves_are_numpy_of_the_documented_dtypes():
    batch = next(batches(split(), WIDTHS, batch_size=4))
    arrays = {
        np.float32: list(batch.features.values()),
        np.bool_: [batch.mask, *batch.available.values()],
        np.int32: [batch.labels, batch.speakers, batch.row_ids],
    }
    for dtype, group in arrays.items():
        assert all(type(a) is np.ndarray and a.dtype == dtype for a in group)


def test_only_the_modalities_asked_for():
    batch = next(batches(split(), {"audio": 2}, batch_size=4))
    assert list(batch.features) == list(batch.available) == ["audio"]


def order(seed, epoch, **options):
    chosen = batches(split(60), WIDTHS, batch_size=4, seed=seed, epoch=epoch, **options)
    return [batch.row_ids[batch.row_ids >= 0].tolist() for batch in chosen]


def test_order_is_a_function_of_seed_and_epoch():
    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_the_real_rows_of_a_batch_do_not_depend_on_the_number_of_devices():
    assert order(1, 2) == order(1, 2, row_multiple=8)


def test_an_interrupted_epoch_resumes_at_any_batch():
    whole = order(1, 2)
    for start in range(len(whole) + 1):
        assert order(1, 2, start=start) == whole[start:]


def planned(conversations, **options):
    return [
        (conversation_ids[:, 0].tolist(), length)
        for conversation_ids, length in plan_padded(conversations, batch_size=4, seed=0, **options)
    ]


def transcribed_lengths(sizes, batch_size, lengths, ceiling):
    """Fills batches with the longest that are left, and gives the padded length of each."""
    sizes, padded = sorted(sizes), []
    while sizes:
        longest = sizes[-1]
        padded.append(min((n for n in lengths if n >= longest), default=ceiling))
        del sizes[-batch_size:]
    return padded


@pytest.mark.parametrize("lengths", [(), (5, 9, 12), (3, 7), (12,)])
@pytest.mark.parametrize("chosen", [None, np.arange(0, 23, 2), np.arange(3), np.arange(0)])
def test_padded_lengths_depend_on_the_epoch_but_not_on_the_seed(lengths, chosen):
    conversations = split()
    positions = np.arange(len(conversations)) if chosen is None else chosen
    options = {"batch_size": 4, "lengths": lengths, "subset": chosen}
    expected = transcribed_lengths([len(conversations[i]) for i in positions], 4, lengths, ceiling=16)
    sequences = set()
    for epoch in range(12):
        plans = [plan_padded(conversations, seed=seed, epoch=epoch, **options) for seed in range(3)]
        (sequence,) = {tuple(length for _, length in plan) for plan in plans}
        assert sorted(sequence) == sorted(expected)
        sequences.add(sequence)
        for plan in plans:
            assert (
                sorted(np.concatenate([[], *(conversation_ids[:, 0] for conversation_ids, _ in plan)]))
                == positions.tolist()
            )
            assert sum(len(conversation_ids) < 4 for conversation_ids, _ in plan) == (len(positions) % 4 > 0)
            for conversation_ids, length in plan:
                assert max(len(conversations[i]) for i in conversation_ids[:, 0]) <= length
    assert len(sequences) > 1 or len(set(expected)) < 2


def test_conversations_change_places_with_those_of_their_class_alone():
    conversations = [conversation(str(i), n) for i, n in enumerate([1, 12, 2, 11, 3, 10, 4, 9, 5, 8, 6, 7, 1])]
    short, long = {0, 2, 4, 6, 8, 10, 11, 9, 12}, {1, 3, 5, 7}
    met = {i: set() for i in range(13)}
    for epoch in range(40):
        for conversation_ids, length in planned(conversations, lengths=(8, 12), epoch=epoch):
            assert set(conversation_ids) <= (short if length == 8 else long)
            for i in conversation_ids:
                met[i] |= set(conversation_ids)
    assert [met[i] for i in sorted(met)] == [short if i in short else long for i in range(13)]


def test_evaluation_pads_each_batch_to_its_own_bucket():
    conversations = [conversation(str(i), n) for i, n in enumerate([9, 2, 5, 1, 12, 4])]
    plan = plan_padded(conversations, batch_size=2, lengths=(4, 9, 12))
    assert [(conversation_ids[:, 0].tolist(), length) for conversation_ids, length in plan] == [
        ([1, 3], 4),
        ([2, 5], 9),
        ([0, 4], 12),
    ]


def test_batches_meet_anew_in_every_epoch():
    together = [frozenset(map(frozenset, order(0, epoch))) for epoch in range(5)]
    for one, other in itertools.combinations(together, 2):
        assert len(one & other) <= 1


def test_padded_length_is_the_smallest_bucket_that_fits():
    conversations = [conversation(str(i), n) for i, n in enumerate((3, 5, 11, 13))]

    def lengths(buckets):
        return [b.mask.shape[1] for b in batches(conversations, WIDTHS, batch_size=1, lengths=buckets)]

    assert lengths((12, 5)) == [5, 5, 12, 16]
    assert lengths((4, 32)) == [4, 32, 32, 32]
    assert lengths(()) == [16, 16, 16, 16]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 20])
@pytest.mark.parametrize(("batch_size", "seed"), list(itertools.product((1, 3), range(3))))
def test_buckets_leave_the_least_padding(count, batch_size, seed):
    conversations = split(count=17 * batch_size - (batch_size > 1), longest=10, seed=seed)
    sizes = [len(c) for c in conversations]
    longest = transcribed_lengths(sizes, batch_size, set(sizes), ceiling=None)
    buckets = bucket_lengths(conversations, batch_size=batch_size, count=count)
    assert buckets == tuple(sorted(set(buckets)))
    assert len(buckets) == min(count, len(set(longest)))
    assert buckets[-1] == max(sizes)

    def positions(lengths):
        return sum(b.mask.size for b in batches(conversations, WIDTHS, batch_size=batch_size, seed=0, lengths=lengths))

    choices = itertools.combinations(sorted(set(longest))[:-1], len(buckets) - 1)
    assert positions(buckets) == min(positions((*choice, max(sizes))) for choice in choices)


def test_sorting_and_buckets_raise_the_useful_share():
    conversations = split(400, longest=40)

    def share(**options):
        return real_fraction(batches(conversations, WIDTHS, batch_size=8, **options))

    buckets = bucket_lengths(conversations, batch_size=8)
    real = sum(len(c) for c in conversations)
    np.testing.assert_allclose(share(), real / (400 * 40), rtol=1e-12)
    np.testing.assert_allclose(share(seed=0), real / (400 * 40), rtol=1e-12)
    assert share(lengths=buckets) == share(lengths=buckets, seed=0) > 0.85


def test_no_conversations_make_no_batches():
    assert list(batches([], WIDTHS, batch_size=4)) == list(batches([], WIDTHS, batch_size=4, seed=0)) == []


def test_a_batch_size_below_one_is_refused_at_once():
    with pytest.raises(UserError, match="batch_size is 0: give at least 1"):
        batches(split(), WIDTHS, batch_size=0)


def test_no_jax_backend_is_initialised():
    program = """
import numpy as np
from jax._src import xla_bridge
from jmer.data.batching import batches
from jmer.data.corpus import Conversation
from jmer.data.packing import steps_per_epoch
text = {"text": np.ones((1, 2), np.float32)}
c = Conversation("a", ["a"], ["s"], np.zeros(1, np.int32), text, {"text": np.ones(1, bool)}, [""])
assert len(list(batches([c], {"text": 2}, batch_size=1, seed=0))) == 1
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)
