"""Batches gathered on the device are those that the host builds, bit for bit."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny import WIDTHS, tiny_corpus

from jmer.data.batching import batches, plan_padded
from jmer.data.packing import make_packing
from jmer.data.resident import gather, make_resident, resident_bytes


def conversations():
    """Of all lengths from 1, with repeated speakers, unlabelled utterances and absent modalities."""
    found = tiny_corpus().conversations("train")
    short = found[0]
    fields = {name: getattr(short, name)[:1] for name in ("utterances", "speakers", "labels", "sentences")}
    first = {m: x[:1] for m, x in short.features.items()}
    there = {m: x[:1] for m, x in short.available.items()}
    return [*found[1:], dataclasses.replace(short, features=first, available=there, **fields)]


def assert_equal(batch, expected):
    leaves, others = jax.tree.leaves_with_path(batch), jax.tree.leaves_with_path(expected)
    for (path, leaf), (other_path, other) in zip(leaves, others, strict=True):
        assert path == other_path and leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other)


@pytest.mark.parametrize("widths", [WIDTHS, {"audio": WIDTHS["audio"]}])
@pytest.mark.parametrize(("batch_size", "multiple", "lengths"), [(3, 4, (2, 5, 8)), (4, 1, ()), (20, 8, (6,))])
def test_gathered_batches_are_those_of_the_host(widths, batch_size, multiple, lengths):
    rows, given = conversations(), {"batch_size": batch_size, "lengths": lengths, "seed": 3, "epoch": 1}
    resident = jax.device_put(make_resident(rows, widths))
    built = batches(rows, widths, row_multiple=multiple, **given)
    for expected, (_, length) in zip(built, plan_padded(rows, **given), strict=True):
        batch = jax.jit(gather, static_argnums=2)(resident, expected.conversation_ids, length)
        assert_equal(batch, expected)


@pytest.mark.parametrize(("batch_size", "multiple"), [(4, 1), (5, 4), (11, 1)])
@pytest.mark.parametrize("pack", [True, False])
def test_gathered_batches_are_those_of_the_host_with_several_conversations_in_a_row(batch_size, multiple, pack):
    rows = conversations()
    resident = jax.device_put(make_resident(rows, WIDTHS))
    packing = make_packing(rows, batch_size=batch_size, pack=pack)
    assert (packing.slots > 1) == pack
    for expected in batches(
        rows, WIDTHS, batch_size=batch_size, packing=packing, row_multiple=multiple, seed=3, epoch=1
    ):
        assert_equal(jax.jit(gather, static_argnums=2)(resident, expected.conversation_ids, packing.length), expected)


def test_padding_rows_may_stand_anywhere():
    rows = conversations()
    conversation_ids = np.array([-1, 4, -1, 10, 0, -1], np.int32)
    batch = gather(make_resident(rows, WIDTHS), conversation_ids[:, None], 8)
    (expected,) = batches([rows[i] for i in (4, 10, 0)], WIDTHS, batch_size=3, lengths=(8,))
    np.testing.assert_array_equal(batch.row_ids, conversation_ids)
    assert_equal(
        jax.tree.map(lambda x: x[conversation_ids >= 0], batch).replace(conversation_ids=expected.conversation_ids),
        expected,
    )
    assert not batch.mask[conversation_ids < 0].any() and (batch.labels[conversation_ids < 0] == -1).all()
    assert all(not x[conversation_ids < 0].any() for x in batch.features.values())


@pytest.mark.parametrize("widths", [WIDTHS, {"text": WIDTHS["text"]}])
def test_bytes_are_counted_without_building(widths):
    rows = conversations()
    assert resident_bytes(rows, widths) == sum(x.nbytes for x in jax.tree.leaves(make_resident(rows, widths)))


def test_no_jax_backend_is_initialised():
    program = """
import numpy as np
from jax._src import xla_bridge
from jmer.data.corpus import Conversation
from jmer.data.resident import make_resident
text = {"text": np.ones((1, 2), np.float32)}
c = Conversation("a", ["a"], ["s"], np.zeros(1, np.int32), text, {"text": np.ones(1, bool)}, [""])
assert make_resident([c], {"text": 2}).length == 1
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
