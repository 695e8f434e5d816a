"""The same training on any number of devices, however the step is mapped over them."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from tiny import WIDTHS, linear_model, start, tiny_config, tiny_corpus

from jmer.training import create_train_state
from jmer.training.step import train_step

STEPS = 20
CHECKED = [("pmap", 2), ("shard_map", 8)]
ALSO = [("pmap", 1), ("pmap", 8), ("shard_map", 1), ("shard_map", 2)]
MAPPINGS = CHECKED + [pytest.param(*mapping, marks=pytest.mark.slow) for mapping in ALSO]

# With 5 conversations a batch, 2 devices get a padding conversation each now and then, and 3 of 8 nothing else.
BASE = {"optimizer__name": "sgd", "optimizer__learning_rate": 0.02, "training__batch_size": 5}
# Every source of randomness and every loss term at once.
SAMPLING = {
    "loss__kl_estimator": "mc",
    "loss__recon_weight": 0.1,
    "loss__class_weights": "inverse_freq",
    "model__dropout_rate": 0.3,
}


@functools.cache
def corpus():
    return tiny_corpus()


@functools.cache
def fresh(backend, devices, sampling=True):
    devices = {} if backend == "jit" else {"training__devices": devices}
    changes = BASE | (SAMPLING if sampling else {"loss__contrast_scope": "conversation"})
    return start(tiny_config(**changes, training__parallel=backend, **devices), corpus())


def copy(state):
    """A state that the step may overwrite."""
    return jax.tree.map(lambda x: x.copy(), state)


@functools.cache
def trained(backend, devices, sampling=True):
    """Returns the state and the metrics of every step after a short training."""
    run = fresh(backend, devices, sampling)
    state, metrics = copy(run.state), []
    for batch in run.batches(STEPS):
        state, one = run.step(state, batch)
        metrics.append(jax.device_get(one))
    return state, metrics


def assert_close(tree, expected, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), jax.device_get(tree), expected)


def assert_same_training(backend, devices, sampling=True):
    expected_state, expected = trained("jit", 1, sampling)
    state, metrics = trained(backend, devices, sampling)
    assert int(state.step) == STEPS
    for one, other in zip(metrics, expected, strict=True):
        assert one.finite
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
        assert_close(one.terms, other.terms, rtol=1e-5)
        np.testing.assert_array_equal(one.confusion, other.confusion)
    assert_close(state.params, jax.device_get(expected_state.params), rtol=0, atol=1e-6)


def test_batches_have_what_is_hard():
    batches = list(fresh("shard_map", 8).batches(3))
    assert all(batch.mask.shape[0] == 8 for batch in batches)
    assert all(not batch.mask[5:].any() for batch in batches)
    real = np.concatenate([batch.mask.ravel() for batch in batches])
    labels = np.concatenate([batch.labels.ravel() for batch in batches])
    assert (labels[real] == -1).any()
    lacking = [~np.concatenate([batch.available[m].ravel() for batch in batches])[real] for m in batches[0].available]
    assert np.all(lacking, axis=0).any()
    assert np.any(lacking, axis=1).all()


def test_training_moves_the_network_and_draws_at_random():
    run = fresh("jit", 1)
    state, metrics = trained("jit", 1)
    assert set(metrics[0].terms) == {"classification", "self", "full", "distillation", "reconstruction"}
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), state.params, run.state.params)
    assert max(jax.tree.leaves(moved)) > 1e-2
    batch = next(run.batches(1))
    other = dataclasses.replace(copy(run.state), rng=jax.random.key(1))
    _, elsewhere = run.step(other, batch)
    for name in ("classification", "reconstruction", "distillation"):
        assert abs(elsewhere.terms[name][0] / metrics[0].terms[name][0] - 1) > 1e-3


@pytest.mark.parametrize(("backend", "devices"), MAPPINGS)
def test_equals_one_device(backend, devices):
    assert_same_training(backend, devices)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_equals_one_device_in_the_literal_interpretation(backend):
    assert_same_training(backend, 8, sampling=False)


@pytest.mark.parametrize(("backend", "devices"), MAPPINGS)
def test_replicas_are_bit_equal(backend, devices):
    state, _ = trained(backend, devices)
    for leaf in jax.tree.leaves(dataclasses.replace(state, rng=jax.random.key_data(state.rng))):
        assert leaf.is_fully_replicated
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == devices
        for shard in shards[1:]:
            np.testing.assert_array_equal(shard, shards[0])


def test_loss_is_the_weighted_sum_of_the_terms_means():
    loss = fresh("jit", 1).pipeline.config.loss
    weights = {
        "classification": 1,
        "self": loss.gamma_self,
        "full": loss.gamma_full,
        "distillation": loss.gamma_distillation,
        "reconstruction": loss.recon_weight,
    }
    for metrics in trained("jit", 1)[1]:
        expected = sum(weights[name] * np.float64(value) / count for name, (value, count) in metrics.terms.items())
        np.testing.assert_allclose(metrics.loss, expected, rtol=1e-6)


def test_confusion_counts_the_labelled_utterances():
    for batch, metrics in zip(fresh("jit", 1).batches(STEPS), trained("jit", 1)[1], strict=True):
        labels = batch.labels[batch.mask]
        np.testing.assert_array_equal(metrics.confusion.sum(1), np.bincount(labels[labels >= 0], minlength=4))


@pytest.mark.parametrize(("backend", "devices"), [("jit", 1), ("shard_map", 8)])
def test_a_step_that_is_not_finite_changes_nothing(backend, devices):
    run = fresh(backend, devices)
    batch = next(run.batches(1))
    text = batch.features["text"].copy()
    text[0, int(batch.available["text"][0].argmax())] = np.inf
    state, metrics = run.step(copy(run.state), batch.replace(features=dict(batch.features) | {"text": text}))
    assert not metrics.finite
    assert not np.isfinite(metrics.terms["classification"][0])
    assert_unchanged(state, run.state)


def linear_step(rate):
    """Returns a state of the smallest model, and its step on one device."""
    model, optimizer = linear_model(), optax.sgd(rate)
    step = jax.jit(functools.partial(train_step, model=model, optimizer=optimizer))
    return create_train_state(model, optimizer, {"text": WIDTHS["text"]}, seed=0), step


def test_a_step_descends_the_gradient_of_the_mean():
    (state, step), batch = linear_step(0.1), next(fresh("jit", 1).batches(1))
    after, metrics = step(state, batch)
    kernel, rows = np.float64(state.params["Dense_0"]["kernel"]), np.float64(batch.features["text"][batch.mask])
    np.testing.assert_allclose(metrics.loss, 0.5 * np.square(rows @ kernel).sum(-1).mean(), rtol=1e-5)
    expected = kernel - 0.1 * rows.T @ rows @ kernel / len(rows)
    np.testing.assert_allclose(after.params["Dense_0"]["kernel"], expected, rtol=1e-5, atol=1e-6)


def test_an_update_that_breaks_the_network_is_refused():
    (state, step), batch = linear_step(3e38), next(fresh("jit", 1).batches(1))
    after, metrics = step(state, batch.replace(features={"text": 10 * batch.features["text"]}))
    assert np.isfinite(metrics.terms["squares"][0])
    assert not metrics.finite
    assert_unchanged(after, state)


def assert_unchanged(state, before):
    assert int(state.step) == int(before.step)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), jax.device_get(before.params))
