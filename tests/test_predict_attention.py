"""The attention of the atmosphere's token is predicted once per utterance, and only where a model has such a token."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny import start, tiny_config, tiny_corpus

from jmer.config import base_config
from jmer.data.batching import batches
from jmer.evaluation.forward import forward_pass
from jmer.models import build_model
from jmer.training.parallel import make_parallel


@functools.cache
def run(causal):
    return start(tiny_config(training__parallel="jit", model__causal=causal), tiny_corpus())


def alone(causal, position):
    """Attention maps `[H, 1 or T, 1 + T]` of a test conversation by a forward pass over it alone, unpadded."""
    pipeline = run(causal).pipeline
    conversation = pipeline.examples["test"][position]
    (batch,) = batches([conversation], pipeline.widths, batch_size=1, lengths=(len(conversation),))
    apply = jax.jit(functools.partial(run(causal).model.module.apply, train=False, attention=True))
    return np.float64(apply(run(causal).state.variables, batch).attention["atmosphere"][0])


def predicted(causal, backend="jit", devices=0):
    """Predictions of the test split in padded batches."""
    parallel = make_parallel(backend, devices)
    variables = parallel.replicate(run(causal).state).variables
    predictor = dataclasses.replace(run(causal).predictor, variables=variables, batch_size=3, mapping=parallel)
    return predictor.predict_normalized(run(causal).pipeline.examples["test"], lengths=(4, 8))


CASES = [
    ("jit", 0),
    pytest.param("pmap", 2, marks=pytest.mark.slow),
    pytest.param("shard_map", 8, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "devices"), CASES)
def test_the_token_reads_each_utterance_as_it_does_alone(backend, devices):
    found = predicted(False, backend, devices).attention
    assert set(found) == {"atmosphere"}
    conversations = run(False).pipeline.examples["test"]
    assert list(map(len, found["atmosphere"])) == list(map(len, conversations))
    # Some attention is what the token reads of itself.
    assert all(0.5 < attention.sum() < 1 for attention in found["atmosphere"] if len(attention) > 3)
    # The last of the first batch, and one of the last batch.
    for position in (2, len(conversations) - 1):
        expected = alone(False, position).mean(0)[0]
        np.testing.assert_allclose(found["atmosphere"][position], expected[1:], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["atmosphere"][position].sum() + expected[0], 1, rtol=1e-5)


@pytest.mark.slow
def test_a_causal_models_token_is_that_of_the_last_utterance():
    found = predicted(True).attention["atmosphere"]
    for position in (2, len(found) - 1):
        expected = alone(True, position).mean(0)[-1, 1:]
        np.testing.assert_allclose(found[position], expected, rtol=1e-4, atol=1e-6)


def test_the_table_has_a_column_of_it():
    table = dataclasses.replace(run(False).predictor, batch_size=3).predict(tiny_corpus(), "test")
    assert list(table)[-1] == "attention_atmosphere"
    expected = np.concatenate(predicted(False).attention["atmosphere"])
    np.testing.assert_allclose(table["attention_atmosphere"], expected, rtol=1e-4, atol=1e-6)


def attention_of(config):
    """Shapes of the attention that a prediction of a configuration's model has, and the attention of a bare call."""
    pipeline = run(False).pipeline
    batch = next(pipeline.train_batches(0))
    config.model.update(num_classes=len(pipeline.card.emotions), modalities=("text", "audio"))
    model = build_model(config)
    variables = jax.eval_shape(lambda: model.module.init(jax.random.key(0), batch))
    bare = jax.eval_shape(lambda v, b: model.module.apply(v, b, train=False), variables, batch)
    return jax.eval_shape(forward_pass(model), variables, batch).attention, getattr(bare, "attention", None)


def test_there_is_none_where_it_is_not_asked_for_or_no_token_is_read():
    found, bare = attention_of(tiny_config())
    assert set(found) == {"atmosphere"} and bare is None
    assert attention_of(tiny_config(model__use_atmosphere=False)) == ({}, None)


@pytest.mark.parametrize(
    "name", ["lpgnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sdt", "dagerc"))]
)
def test_a_model_without_the_token_has_none(name):
    assert attention_of(base_config(name)) == ({}, None)
