"""A network predicts every utterance exactly once, however conversations are put together."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny import start, tiny_config, tiny_corpus

from jmer.data.batching import batches
from jmer.training.parallel import Parallel, make_parallel


@functools.cache
def run():
    return start(tiny_config(training__parallel="jit"), tiny_corpus())


@functools.cache
def alone():
    """Probabilities and weights of each test conversation by a forward pass over it alone, without any padding."""
    pipeline, variables = run().pipeline, run().state.variables
    apply = jax.jit(functools.partial(run().model.module.apply, train=False))
    found = []
    for conversation in pipeline.examples["test"]:
        (batch,) = batches([conversation], pipeline.widths, batch_size=1, lengths=(len(conversation),))
        output = apply(variables, batch)
        odds = np.exp(np.float64(output.logits[0]))
        found.append((odds / odds.sum(-1, keepdims=True), {m: w[0] for m, w in output.weights.items()}))
    return found


def assert_equals_alone(probabilities, weights):
    expected = alone()
    assert len(probabilities) == len(expected)
    assert set(weights) == {"text", "audio", "visual"}
    for i, (one, its_weights) in enumerate(expected):
        assert probabilities[i].shape == one.shape
        np.testing.assert_allclose(probabilities[i], one, rtol=1e-4, atol=1e-6)
        for m, w in weights.items():
            np.testing.assert_allclose(w[i], its_weights[m], rtol=1e-4, atol=1e-6)


def test_conversations_differ_enough_to_be_told_apart():
    means = np.array([probabilities.mean(0) for probabilities, _ in alone()])
    for i, one in enumerate(means):
        assert all(np.abs(one - other).max() > 1e-4 for other in means[:i])


CASES = [("jit", 0, 1), ("jit", 0, 3), ("pmap", 2, 3), ("shard_map", 8, 2)]
SLOW = [("jit", 0, 100), ("pmap", 8, 5), ("shard_map", 2, 7), ("pmap", 8, 100)]


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A mapping over devices that notes the conversations of the batches it gets."""

    mapping: Parallel
    seen: list

    @property
    def row_multiple(self):
        return self.mapping.row_multiple

    def forward(self, forward):
        mapped = self.mapping.forward(forward)

        def recording(variables, batch):
            self.seen.extend(position for position in batch.row_ids if position >= 0)
            return mapped(variables, batch)

        return recording


@pytest.mark.parametrize(
    ("backend", "devices", "batch_size"), CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_any_batch_size_and_devices_give_each_utterance_once(backend, devices, batch_size):
    parallel, seen = make_parallel(backend, devices), []
    predictor = dataclasses.replace(
        run().predictor,
        variables=parallel.replicate(run().state).variables,
        batch_size=batch_size,
        mapping=Recording(parallel, seen),
    )
    examples = run().pipeline.examples["test"]
    found = predictor.predict_normalized(examples, lengths=(4, 8))
    assert sorted(seen) == list(range(len(examples)))
    assert_equals_alone(found.probabilities, found.weights)


def test_the_table_has_a_row_for_each_utterance_of_the_corpus():
    corpus = tiny_corpus()
    table = dataclasses.replace(run().predictor, batch_size=3).predict(corpus, "test")
    conversations = corpus.conversations("test")
    names = [(c.id, utterance) for c in conversations for utterance in c.utterances]
    assert list(zip(table.conversation, table.utterance, strict=True)) == names
    ends = np.cumsum([len(c) for c in conversations])[:-1]
    probabilities = table[[f"probability_{name}" for name in corpus.card.emotions]].to_numpy()
    # The table leaves the weight of an unavailable modality empty, where the model has 0.
    weights = {m: np.split(table[f"weight_{m}"].fillna(0).to_numpy(), ends) for m in corpus.card.widths}
    assert_equals_alone(np.split(probabilities, ends), weights)
