"""An epoch in one call on the device is the same training as its steps one by one, on any number of devices."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny import LINEAR, WIDTHS, by_shifts, linear_model, start, tiny_config, tiny_corpus

from jmer.config import base_config
from jmer.data.packing import PlannedBatch, make_epoch_plan
from jmer.data.resident import make_resident
from jmer.models import register_model
from jmer.pipeline import Pipeline
from jmer.training import create_train_state, make_optimizer, train_epoch, train_step
from jmer.training.execution import SingleRun, fits_on_device
from jmer.training.progress import Progress

# The first epoch of the curriculum has two steps, the others have four: in a whole epoch, steps are left out.
STEPS = [2, 4, 4]
CHECKED = [("jit", 1), ("pmap", 8), ("shard_map", 2)]
ALSO = [("pmap", 1), ("pmap", 2), ("shard_map", 1), ("shard_map", 8)]
MAPPINGS = CHECKED + [pytest.param(*mapping, marks=pytest.mark.slow) for mapping in ALSO]
# Several conversations in a row, and every source of randomness and every loss term at once.
CHANGES = {
    "optimizer__name": "sgd",
    "optimizer__learning_rate": 0.02,
    "training__batch_size": 3,
    **by_shifts(2),
    "training__epochs": len(STEPS),
    "loss__kl_estimator": "mc",
    "loss__recon_weight": 0.1,
}


@functools.cache
def corpus():
    return tiny_corpus()


def fresh(backend, devices, **changes):
    devices = {} if backend == "jit" else {"training__devices": devices}
    return start(tiny_config(**CHANGES | changes, training__parallel=backend, **devices), corpus())


def trained(run):
    """Returns the state after a short training, and the progress at the end of each epoch without what a clock gave."""
    assert run.pipeline.schedule.steps == STEPS
    execution, reached = SingleRun(run.pipeline, run.model, run.optimizer), []
    execution.load([run.state])
    for epoch in range(len(STEPS)):
        *_, results = execution.train_epoch({0: Progress(epoch=epoch)})
        assert list(results) == [0] and results[0].metrics.finite
        reached.append(dataclasses.replace(results[0].progress, batch_seconds=0.0))
    (state,) = execution.states()
    return jax.device_get(state.params), int(state.step), reached


@functools.cache
def by_steps():
    run = fresh("jit", 1, training__resident_megabytes=0)
    assert not fits_on_device(run.pipeline)
    return trained(run)


@pytest.mark.parametrize(("backend", "devices"), MAPPINGS)
def test_equals_its_steps_one_by_one(backend, devices):
    run = fresh(backend, devices)
    assert run.pipeline.packing.slots > 1 and fits_on_device(run.pipeline)
    params, step, reached = trained(run)
    expected_params, expected_step, expected = by_steps()
    assert step == expected_step == sum(STEPS)
    for one, other in zip(reached, expected, strict=True):
        assert (one.batch, one.confusion) == (other.batch, other.confusion)
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
        assert one.terms == {name: pytest.approx(pair, rel=1e-5) for name, pair in other.terms.items()}
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), params, expected_params)


def planned(*batches):
    """Batches with one conversation per row."""
    return [PlannedBatch(np.array(conversation_ids)[:, None], 8) for conversation_ids in batches]


def test_a_plan_lays_out_what_is_left_of_an_epoch():
    batches = [PlannedBatch(np.array(rows), 9) for rows in ([[3, 1], [6, -1]], [[0, 5], [-1, -1]], [[2, 4], [7, 8]])]
    plan = make_epoch_plan(batches, rows=3, steps=5, start=1)
    none = [[-1, -1]] * 3
    np.testing.assert_array_equal(
        plan.conversation_ids, [none, [[0, 5], *none[:2]], [[2, 4], [7, 8], none[0]], none, none]
    )
    np.testing.assert_array_equal(plan.computed, [False, True, True, False, False])
    np.testing.assert_array_equal(plan.active, plan.computed)
    assert (plan.conversation_ids.dtype, plan.computed.dtype, plan.active.dtype) == (np.int32, bool, bool)


@functools.cache
def linear():
    """Returns the smallest model's options of a step, and a first state."""
    section = tiny_config(optimizer__learning_rate=0.1).optimizer
    options = {"model": linear_model(dropout_rate=0.5), "optimizer": make_optimizer(section, steps=[9])}
    return options, create_train_state(**options, widths={"text": WIDTHS["text"]}, seed=0)


def epoch(plan, resident):
    options, state = linear()
    run = functools.partial(train_epoch, **options, length=8)
    return jax.jit(run)(state, resident, plan)


def split(scale=()):
    """The training split; the conversations in `scale` are made as large."""
    resident = make_resident(corpus().conversations("train"), {"text": WIDTHS["text"]})
    text = resident.features["text"].copy()
    for conversation, factor in scale:
        first = resident.first[conversation]
        text[first : first + resident.length[conversation]] *= np.float32(factor)
    return resident.replace(features={"text": text})


def assert_same(state, expected):
    jax.tree.map(np.testing.assert_array_equal, state.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, expected.opt_state)
    assert int(state.step) == int(expected.step)


def test_steps_that_are_not_active_leave_the_state_alone():
    batches = planned([3, 1], [0, 5], [2, 4])
    rest = make_epoch_plan(batches, rows=2, steps=3, start=1)
    state, metrics = epoch(rest, split())
    assert int(state.step) == 2
    expected, alone = epoch(make_epoch_plan(batches[1:], rows=2, steps=4), split())
    assert_same(state, expected)
    np.testing.assert_array_equal(metrics.loss[1:], alone.loss[:2])
    # The same where the steps are computed, as they are for runs that advance beside others.
    state, _ = epoch(make_epoch_plan(batches, rows=2, steps=3).replace(active=rest.active), split())
    assert_same(state, expected)


def test_nothing_follows_a_step_that_is_not_finite():
    batches = planned([3, 1], [0, 5], [2, 4], [6, 7])
    plan = make_epoch_plan(batches, rows=2, steps=4)
    state, metrics = epoch(plan, split(scale=[(5, 1e25)]))
    np.testing.assert_array_equal(metrics.finite[:2], [True, False])
    expected, _ = epoch(make_epoch_plan(batches[:1], rows=2, steps=4), split())
    assert_same(state, expected)


def test_a_step_that_is_not_active_says_whether_it_was_finite():
    options, state = linear()
    run = start(tiny_config(training__parallel="jit"), corpus())
    batch = next(run.batches(1))
    after, metrics = jax.jit(functools.partial(train_step, **options, active=False))(state, batch)
    assert metrics.finite and metrics.loss > 0
    assert_same(after, state)


def test_what_is_too_large_is_trained_step_by_step():
    run = start(tiny_config(training__parallel="jit"), corpus())
    assert fits_on_device(run.pipeline)
    run.pipeline.config.training.resident_megabytes = 0
    assert not fits_on_device(run.pipeline)


def test_a_model_that_does_not_keep_conversations_apart_gets_one_per_row():
    config = base_config(register_model(LINEAR).name)
    config.training.batch_size = 3
    pipeline = Pipeline.for_training(config, corpus())
    assert (pipeline.packing.slots, pipeline.packing.rows) == (1, 3)
    for epoch_batches in (pipeline.train_batches(0), pipeline.evaluation_batches("test")):
        for batch in epoch_batches:
            assert batch.conversation_ids.shape[1] == 1
