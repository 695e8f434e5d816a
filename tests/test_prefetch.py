"""Batches are built ahead of the step that takes them: in order, a few at most, by a thread that ends in time."""

import functools
import itertools
import threading

import jax
import numpy as np
import optax
import pytest
from tiny import WIDTHS, linear_model, tiny_corpus

from jmer.data.batching import batches
from jmer.training import create_train_state, make_parallel, train_step
from jmer.training.prefetch import prefetched

PATIENCE = 30


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def identity(batch):
    return batch


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_batches_come_placed_and_in_order(count, ahead):
    with prefetched(range(count), str, ahead) as found:
        assert list(found) == [str(i) for i in range(count)]
    assert not threads()


def test_the_next_batch_is_built_while_one_is_computed_and_no_more_than_there_is_room_for():
    built = [threading.Event() for _ in range(9)]

    def source():
        for i, event in enumerate(built):
            event.set()
            yield i

    with prefetched(source(), identity, 2) as found:
        for i in range(6):
            assert next(found) == i
            # Nobody has asked for these two.
            assert built[i + 1].wait(PATIENCE) and built[i + 2].wait(PATIENCE)
            assert not built[i + 3].wait(0.01)
    assert not threads()
    assert not built[8].is_set()


class Gone(Exception):
    pass


@pytest.mark.parametrize("error", [Gone("no such file"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("where", ["building", "placing"])
def test_what_is_raised_comes_out_as_it_is_where_the_batch_would(where, error):
    def fail(there, i):
        if there == where and i == 2:
            raise error
        return i

    with prefetched((fail("building", i) for i in itertools.count()), functools.partial(fail, "placing")) as found:
        assert [next(found), next(found)] == [0, 1]
        with pytest.raises(type(error)) as raised:
            next(found)
    assert raised.value is error
    assert raised.traceback[-1].name == "fail"
    assert not threads()


def test_no_thread_is_left_when_the_consumer_stops_or_fails():
    with prefetched(itertools.count(), identity) as found:
        assert next(found) == 0
    assert not threads()
    with pytest.raises(Gone), prefetched(itertools.count(), identity) as found:
        for _ in found:
            raise Gone
    assert not threads()

    def steps():
        with prefetched(itertools.count(), identity) as found:
            yield from found

    for step in steps():
        if step == 3:
            break
    assert not threads()


@pytest.mark.parametrize(("backend", "devices"), [("jit", 0), ("pmap", 2), ("shard_map", 2)])
def test_a_placed_batch_gives_the_same_bits_and_compiles_nothing_more(backend, devices):
    mapping, model, optimizer = make_parallel(backend, devices), linear_model(dropout_rate=0.5), optax.sgd(0.1)
    traces = []

    def counted(*arguments, **options):
        traces.append(1)
        return train_step(*arguments, model=model, optimizer=optimizer, **options)

    step = mapping.step(counted)
    conversations = tiny_corpus().conversations("train")

    def train(place):
        state = mapping.replicate(create_train_state(model, optimizer, {"text": WIDTHS["text"]}, seed=0))
        losses = []
        for batch in batches(conversations, WIDTHS, batch_size=4, lengths=(8,), row_multiple=mapping.row_multiple):
            state, metrics = step(state, place(batch))
            losses.append(float(metrics.loss))
        return jax.device_get(state.params), losses

    (params, losses), (expected, expected_losses) = train(mapping.place), train(identity)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert losses == expected_losses
    assert len(traces) == 1
