"""What the atmosphere's token reads comes out once per utterance, and only where it is asked for and there is one."""

import functools

import jax
import numpy as np
import pytest
from tiny import start, tiny_config, tiny_corpus

from jmer.config import base_config
from jmer.data.batching import batches
from jmer.evaluation.predict import forward, predict, predict_conversations
from jmer.models import build_model
from jmer.training.parallel import make_parallel


@functools.cache
def run(causal):
    return start(tiny_config(training__parallel="jit", model__causal=causal), tiny_corpus())


def alone(causal, position):
    """Attention maps `[H, 1 or T, 1 + T]` of a test conversation by a forward pass over it alone, unpadded."""
    setup, variables = run(causal).setup, run(causal).state.variables
    conversation = setup.conversations["test"][position]
    (batch,) = batches([conversation], setup.widths, batch_size=1, lengths=(len(conversation),))
    apply = jax.jit(functools.partial(setup.model.module.apply, train=False, attention=True))
    return np.float64(apply(variables, batch).attention["atmosphere"][0])


def predicted(causal, backend="jit", devices=0):
    """Predictions of the test split in padded batches."""
    setup, parallel = run(causal).setup, make_parallel(backend, devices)
    return predict_conversations(
        parallel.forward(forward(setup.model, attention=True)),
        parallel.replicate(run(causal).state).variables,
        setup.conversations["test"],
        setup.widths,
        batch_size=3,
        lengths=(4, 8),
        row_multiple=parallel.multiple,
    )


CASES = [
    ("jit", 0),
    pytest.param("pmap", 2, marks=pytest.mark.slow),
    pytest.param("shard_map", 8, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "devices"), CASES)
def test_the_token_reads_each_utterance_as_it_does_alone(backend, devices):
    found = predicted(False, backend, devices).attention
    assert set(found) == {"atmosphere"}
    conversations = run(False).setup.conversations["test"]
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
    setup, variables = run(False).setup, run(False).state.variables
    table = predict(setup.model, variables, tiny_corpus(), split="test", statistics=setup.statistics, batch_size=3)
    assert list(table)[-1] == "attention_atmosphere"
    expected = np.concatenate(predicted(False).attention["atmosphere"])
    np.testing.assert_allclose(table["attention_atmosphere"], expected, rtol=1e-4, atol=1e-6)


def attention_of(config, **asked):
    """Shapes of the attention that a configuration's model gives for a batch."""
    setup = run(False).setup
    batch = next(setup.training_batches())
    config.model.update(num_classes=len(setup.class_names), modalities=("text", "audio"))
    model = build_model(config)
    variables = jax.eval_shape(lambda: model.module.init(jax.random.key(0), batch))
    return jax.eval_shape(forward(model, **asked), variables, batch)[2]


def test_there_is_none_where_it_is_not_asked_for_or_no_token_is_read():
    assert set(attention_of(tiny_config(), attention=True)) == {"atmosphere"}
    assert attention_of(tiny_config()) == {}
    assert attention_of(tiny_config(model__use_atmosphere=False), attention=True) == {}


@pytest.mark.parametrize(
    "name", ["lpgnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sdt", "dagerc"))]
)
def test_a_model_without_the_token_has_none(name):
    assert attention_of(base_config(name), attention=True) == {}
