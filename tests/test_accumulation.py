"""A batch computed in pieces, one after the other, is the same step with less in memory at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from tiny import LINEAR, linear_config, tiny_corpus, train

from jmer.config import base_config, with_variants
from jmer.errors import UserError
from jmer.models import build_model, register_model
from jmer.pipeline import Pipeline
from jmer.training import create_train_state, make_optimizer, make_parallel, train_step
from jmer.training.checkpointing import newest_progress
from jmer.training.execution import check_execution, make_execution
from jmer.training.modulation import make_modulation
from jmer.training.progress import Progress

STEPS = 3
# Dropout, weighted classes, missing modalities, utterances without a label, the classifiers of a modulation. With 5
# conversations a batch, one a row, there are rows without any wherever they are divided.
CHANGES = {
    "model.dropout_rate": 0.3,
    "loss.class_weights": "log_inverse_freq",
    "modulation.method": "classifier_guided",
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.05,
    "training.batch_size": 5,
}


@functools.cache
def corpus():
    return tiny_corpus()


def configured(model, **changes):
    config = with_variants(base_config(model), "tiny")
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


@functools.cache
def prepared(model="concat_mlp"):
    config = configured(model)
    # Adam would make much of a gradient that is zero but for rounding.
    shared = [name for name in CHANGES if name.startswith(("optimizer.", "training."))]
    config.update_from_flattened_dict(CHANGES if model == "concat_mlp" else {name: CHANGES[name] for name in shared})
    pipeline = Pipeline.for_training(config, corpus())
    return pipeline, build_model(pipeline.config)


def trained(pieces, backend="jit", devices=0, model="concat_mlp", double=False):
    """Returns the state after a few steps, and their metrics."""
    pipeline, network = prepared(model)
    modulation = make_modulation(pipeline.config.modulation, network, pipeline.widths)
    with jax.enable_x64(double):
        mapping = make_parallel(backend, devices)
        optimizer = make_optimizer(pipeline.config.optimizer, steps=pipeline.schedule.steps)
        state = create_train_state(network, optimizer, pipeline.widths, 0, modulation=modulation)
        if double:
            state = jax.tree.map(as_double, state)
        options = {"model": network, "optimizer": optimizer, "modulation": modulation, "accumulation_steps": pieces}
        step, state = mapping.step(functools.partial(train_step, **options)), mapping.replicate(state)
        metrics = []
        made = pipeline.train_batches(0, row_multiple=mapping.row_multiple * pieces)
        for _, batch in zip(range(STEPS), made, strict=False):
            state, one = step(state, jax.tree.map(as_double, batch) if double else batch)
            metrics.append(jax.device_get(one))
        return jax.device_get((state.params, state.modulation)), metrics


def as_double(x):
    return x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x


def assert_same_training(found, expected, tolerance):
    (state, metrics), (expected_state, expected_metrics) = found, expected
    assert len(metrics) == len(expected_metrics) == STEPS
    for one, other in zip(metrics, expected_metrics, strict=True):
        assert one.finite and set(one.terms) == set(other.terms)
        np.testing.assert_array_equal(one.confusion, other.confusion)
        np.testing.assert_allclose(one.loss, other.loss, rtol=tolerance)
        for name, (value, count) in one.terms.items():
            np.testing.assert_allclose(value, other.terms[name][0], rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(count, other.terms[name][1], rtol=tolerance)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance), state, expected_state)


@functools.cache
def at_once(model="concat_mlp", double=False):
    return trained(1, model=model, double=double)


ALSO = [("jit", 0, 5), ("shard_map", 4, 2)]
MAPPINGS = [("jit", 0, 2), ("pmap", 4, 2), *(pytest.param(*mapping, marks=pytest.mark.slow) for mapping in ALSO)]


@pytest.mark.parametrize(("backend", "devices", "pieces"), MAPPINGS)
def test_pieces_are_the_step_of_the_whole_batch(backend, devices, pieces):
    assert_same_training(trained(pieces, backend, devices), at_once(), 1e-5)


def test_pieces_are_the_step_of_the_whole_batch_in_double_precision():
    found, expected = trained(2, double=True), at_once(double=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(found[0][0])} == {np.dtype("float64")}
    assert_same_training(found, expected, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dagerc", "sdt", "mmgcn", "dialoguernn"])
def test_pieces_of_other_models(model):
    for backend, devices in (("jit", 0), ("pmap", 4)):
        assert_same_training(trained(2, backend, devices, model=model), at_once(model), 1e-5)


def products(jaxpr, times=1):
    """Yields the numbers of multiplications of the matrix products that a program runs, loops as often as they turn."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            yield times * equation.outvars[0].aval.size * int(np.prod([shape[axis] for axis in contracted]))
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner, times * equation.params.get("length", 1))


def lowered(pieces, **changes):
    pipeline, model = prepared()
    optimizer = make_optimizer(pipeline.config.optimizer, steps=pipeline.schedule.steps)
    state = create_train_state(model, optimizer, pipeline.widths, 0)
    step = functools.partial(train_step, model=model, optimizer=optimizer, accumulation_steps=pieces)
    batch = next(pipeline.train_batches(0, row_multiple=8))
    return step, jax.tree.map(lambda x: np.repeat(x, 4, axis=0), batch), state


def test_the_network_runs_once_over_each_row():
    multiplications = {}
    for pieces in (1, 2, 8):
        step, batch, state = lowered(pieces)
        multiplications[pieces] = sum(products(jax.make_jaxpr(step)(state, batch).jaxpr))
    assert multiplications[1] == multiplications[2] == multiplications[8] > 0


def test_pieces_take_less_memory():
    peaks = {}
    for pieces in (1, 8):
        step, batch, state = lowered(pieces)
        peaks[pieces] = jax.jit(step).lower(state, batch).compile().memory_analysis().temp_size_in_bytes
    assert 3 * peaks[8] < peaks[1]


def linear(**changes):
    return linear_config(model__dropout_rate=0.5, training__batch_size=5, **changes)


def test_an_epoch_in_one_call_step_by_step_and_of_two_seeds():
    reached = {}
    for name, count, changes in (
        ("whole", 1, {}),
        ("pieces", 1, {"training__accumulation_steps": 2}),
        ("by steps", 1, {"training__accumulation_steps": 2, "training__resident_megabytes": 0}),
        ("two seeds", 2, {"training__accumulation_steps": 2}),
    ):
        configs = [linear(seed=seed, **changes) for seed in range(count)]
        pipeline = Pipeline.for_training(configs[0], corpus())
        model = build_model(pipeline.config)
        optimizer = make_optimizer(configs[0].optimizer, steps=pipeline.schedule.steps)
        execution = make_execution(pipeline, model, optimizer, configs)
        execution.load([create_train_state(model, optimizer, pipeline.widths, seed) for seed in range(count)])
        *_, results = execution.train_epoch(dict.fromkeys(range(count), Progress()))
        reached[name] = jax.device_get(execution.states()[0].params), results[0].progress
    params, progress = reached.pop("whole")
    for found, other in reached.values():
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), found, params)
        assert (other.batch, other.confusion) == (progress.batch, progress.confusion)
        np.testing.assert_allclose(other.loss, progress.loss, rtol=1e-6)


def test_a_run_resumes_with_other_pieces(tmp_path):
    train(linear(training__epochs=1), corpus(), tmp_path)
    assert train(linear(training__accumulation_steps=2, training__rematerialize=True), corpus(), tmp_path)
    assert newest_progress(tmp_path / "checkpoints").epoch == 2


def refusal(model, **changes):
    config = configured(model, **{"training__accumulation_steps": 2, "training__parallel": "jit"} | changes)
    pipeline = Pipeline.for_training(config, corpus())
    with pytest.raises(UserError) as refused:
        check_execution(pipeline, build_model(pipeline.config), 1)
    return str(refused.value)


ADMITTED = "training.accumulation_steps=2 computes a batch in pieces, but "
CONTRAST = "has a loss that compares all utterances of a batch: set {} to 0, or training.accumulation_steps to 1"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("lfvd", CONTRAST.format("loss.gamma_self, loss.gamma_full")),
        ("multiemo", CONTRAST.format("loss.lambda_correlation, loss.lambda_contrast")),
        ("lsdgnn", CONTRAST.format("loss.beta")),
        ("lpgnet", "normalises by statistics of the whole batch with these settings: set training.accumulation_steps"),
        ("m3net", "normalises by statistics of the whole batch with these settings: set training.accumulation_steps"),
    ],
)
def test_what_needs_the_whole_batch_is_refused(model, reason):
    assert refusal(model).startswith(f"{ADMITTED}model {model} {reason}")


def test_fewer_rows_than_pieces_and_no_pieces_are_refused():
    message = refusal("concat_mlp", training__accumulation_steps=3, training__batch_size=1)
    assert message.startswith("training.accumulation_steps=3 computes a batch in pieces, but it has 1 row on each devi")
    with pytest.raises(UserError, match=r"^training\.accumulation_steps is 0: give at least 1$"):
        Pipeline.for_training(configured("concat_mlp", training__accumulation_steps=0), corpus())


def confident(output, batch):
    """A loss whose count depends on the output."""
    return {"confident": (1.0, output.logits.sum(), (output.logits > 0).sum() + output.logits[0, 0, 0])}


def test_a_count_that_depends_on_the_output_is_refused():
    register_model(dataclasses.replace(LINEAR, name="confident", loss=confident, variants={"tiny": {}}))
    assert "has a loss with a count that depends on the network's output" in refusal("confident")


@pytest.mark.parametrize(("model", "changes"), [("lfvd", {"loss__gamma_self": 0.0, "loss__gamma_full": 0.0})])
def test_without_what_needs_the_batch_it_is_computed_in_pieces(model, changes):
    config = configured(model, training__accumulation_steps=2, training__parallel="jit", **changes)
    pipeline = Pipeline.for_training(config, corpus())
    check_execution(pipeline, build_model(pipeline.config), 1)


def test_attributes_are_compared_over_the_batch():
    pipeline, _ = prepared()
    config = pipeline.config.copy_and_resolve_references().unlock()
    config.attributes.names, config.attributes.scales = ("valence",), (0.0, 1.0)
    config.training.accumulation_steps = 2
    model = build_model(config)
    with pytest.raises(UserError, match="compares the attributes of all utterances of a batch"):
        check_execution(dataclasses.replace(pipeline, config=config), model, 2)
