"""A network predicts every utterance exactly once, however conversations are put together."""

import contextlib
import dataclasses
import functools
import logging
import re

import jax
import numpy as np
import pandas as pd
import pytest
from test_frames import POOLING, Pooling, cross_entropy
from tiny import EMOTIONS, LINEAR, WIDTHS, Linear, linear_model, mean_square, start, tiny_config, tiny_corpus

import jmer
from jmer.data import make_conversation, make_corpus
from jmer.data.batching import batches
from jmer.data.normalization import Standardization
from jmer.errors import UserError
from jmer.evaluation import (
    EnsemblePredictor,
    Predictor,
    classification_report,
    mean_probabilities,
    prediction_table,
    read_predictions,
    report,
)
from jmer.evaluation.spread import member_spread
from jmer.models import Model, build_model
from jmer.training import Parallel, create_train_state, make_parallel


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
    """A mapping over devices that notes the batches it gets."""

    mapping: Parallel
    seen: list = dataclasses.field(default_factory=list)

    @property
    def shapes(self):
        return {(*batch.mask.shape, batch.conversation_ids.shape[1]) for batch in self.seen}

    @property
    def row_multiple(self):
        return self.mapping.row_multiple

    def forward(self, forward):
        mapped = self.mapping.forward(forward)

        def recording(variables, batch):
            self.seen.append(batch)
            return mapped(variables, batch)

        return recording


@pytest.mark.parametrize(
    ("backend", "devices", "batch_size"), CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_any_batch_size_and_devices_give_each_utterance_once(backend, devices, batch_size):
    parallel = make_parallel(backend, devices)
    recording = Recording(parallel)
    predictor = dataclasses.replace(
        run().predictor,
        variables=parallel.replicate(run().state).variables,
        batch_size=batch_size,
        mapping=recording,
    )
    examples = run().pipeline.examples["test"]
    found = predictor.predict_normalized(examples, lengths=(4, 8))
    seen = [position for batch in recording.seen for position in batch.row_ids if position >= 0]
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


def assert_same_table(one, other, **tolerance):
    """Two tables say the same of utterances, but for rounding, whatever corpus and split these are of."""
    one, other = (table.drop(columns=["corpus", "split"], errors="ignore") for table in (one, other))
    pd.testing.assert_frame_equal(one, other, check_dtype=False, **{"rtol": 1e-4, "atol": 1e-6} | tolerance)


def linear(rate=1.0, **changes):
    """A predictor of the smallest model, whose parameters `rate` multiplies; changes of its fields."""
    model = linear_model()
    variables = {"params": {"Dense_0": {"kernel": rate * np.linspace(-1, 1, 24).reshape(6, 4).astype(np.float32)}}}
    variables["params"]["Dense_0"]["bias"] = np.arange(4, dtype=np.float32)
    mean, scale = np.arange(6, dtype=np.float32), np.full(6, 2, np.float32)
    normalizing = {"text": dataclasses.replace(Standardization.unchanged(6), mean=mean, scale=scale)}
    return dataclasses.replace(Predictor(model, variables, normalizing, EMOTIONS, batch_size=4), **changes)


def conversation(length=3, **changes):
    """A conversation of random features, with text alone."""
    rng = np.random.default_rng(length)
    return make_conversation({"text": rng.normal(size=(length, WIDTHS["text"]))}, **changes)


def packing_model():
    """The smallest model, declared to keep the conversations of a row apart."""
    return Model(dataclasses.replace(LINEAR, packing=True), Linear(), mean_square)


# Compilation.


@contextlib.contextmanager
def compilations(caplog):
    """Yields a list to which the names of the programs are added that are compiled in the block."""
    names = []
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        yield names
    names += [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling ")]


def test_a_second_call_compiles_nothing(caplog):
    """Neither with other conversations of the shape, nor with a predictor of other variables."""
    # A model that no other test has compiled.
    model, first, second = packing_model(), conversation(70), conversation(90)
    with compilations(caplog) as names:
        before = linear(model=model).predict(first)
    assert len(names) == 1, names
    with compilations(caplog) as names:
        again, other = (linear(model=model).predict(one) for one in (first, second))
        moved = linear(rate=2.0, model=model).predict(first)
    assert names == []
    assert_same_table(again, before, rtol=0, atol=0)
    assert (len(other), len(moved)) == (90, 70)
    assert np.abs(moved["probability_sad"] - before["probability_sad"]).max() > 1e-3


def test_a_second_evaluation_compiles_nothing(caplog):
    corpus = tiny_corpus()
    scores = linear().evaluate(corpus)
    with compilations(caplog) as names:
        assert linear().evaluate(corpus) == scores
    assert names == []


@pytest.mark.parametrize("packing", [False, True])
def test_conversations_of_any_length_fall_into_few_shapes(packing):
    recording = Recording(make_parallel("jit"))
    predictor = linear(model=packing_model() if packing else linear_model(), mapping=recording)
    for length in range(1, 101):
        assert len(predictor.predict(conversation(length))) == length
    lengths = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    assert recording.shapes == {(1, length, 1) for length in lengths}
    assert all(batch.mask.mean() > 2 / 3 for batch in recording.seen if batch.mask.shape[1] > 4)


@pytest.mark.parametrize(("packing", "most"), [(False, 12), (True, 22)])
def test_conversations_of_any_number_fall_into_few_shapes(packing, most):
    recording = Recording(make_parallel("jit"))
    predictor = linear(model=packing_model() if packing else linear_model(), mapping=recording, batch_size=32)
    rng = np.random.default_rng(0)
    for count in range(1, 101):
        made = [conversation(int(length)) for length in rng.integers(1, 41, count)]
        assert len(predictor.predict(made)) == sum(map(len, made))
    assert len(recording.shapes) <= most


def framed(**changes):
    """A predictor of the smallest model of frames."""
    variables = {"params": {"Dense_0": {"kernel": np.ones((6, 4), np.float32), "bias": np.zeros(4, np.float32)}}}
    model = Model(POOLING, Pooling(4), cross_entropy)
    return dataclasses.replace(linear(model=model, variables=variables, frames=True), **changes)


def test_utterances_of_any_number_of_frames_fall_into_few_shapes():
    recording = Recording(make_parallel("jit"))
    for count in range(1, 101):
        utterances = [np.ones((count, WIDTHS["text"])), np.ones((1, WIDTHS["text"]))]
        assert len(framed(mapping=recording).predict(make_conversation({"text": utterances}))) == 2
    found = {batch.frames["text"].shape for batch in recording.seen}
    assert found == {(2, 1, length) for length in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)}


# What does not fit.


def text_corpus(**changes):
    """The corpus with text alone, in which all of it is available; changes of its card."""
    splits = {"test": [conversation(n, id=str(n), labels=[n % 4] * n) for n in (3, 5)]}
    return changed(make_corpus(splits, emotions=EMOTIONS, name="talks"), **changes)


def changed(corpus, **changes):
    return dataclasses.replace(corpus, card=dataclasses.replace(corpus.card, **changes))


def missing(corpus, *modalities):
    """Returns the corpus without modalities."""
    card = dataclasses.replace(corpus.card, widths={m: w for m, w in corpus.card.widths.items() if m not in modalities})
    return make_corpus({s: [lacking(c, *modalities) for c in corpus.conversations(s)] for s in corpus.splits}, card)


def lacking(conversation, *modalities):
    """Returns the conversation without modalities."""
    kept = {m: x for m, x in conversation.features.items() if m not in modalities}
    return dataclasses.replace(conversation, features=kept, available={m: conversation.available[m] for m in kept})


def unavailable(conversation, *modalities):
    """Returns the conversation with modalities that no utterance has."""
    features = {m: np.zeros_like(x) if m in modalities else x for m, x in conversation.features.items()}
    available = {m: there & (m not in modalities) for m, there in conversation.available.items()}
    return dataclasses.replace(conversation, features=features, available=available)


def frames(count=2, width=WIDTHS["text"]):
    return make_conversation({"text": [np.ones((3, width))] * count})


NOT_CONVERSATIONS = "predict takes a corpus or conversations (jmer.data.make_conversation), not"
MISFITS = {
    "emotions in another order": (
        lambda: linear().predict(changed(text_corpus(), emotions=EMOTIONS[::-1])),
        "corpus 'talks' has the emotions angry, neutral, sad, happy, the model was trained for happy, sad, neutral, "
        "angry: convert the corpus with these, in this order",
    ),
    "emotions in another order, to be scored": (
        lambda: linear().evaluate(changed(text_corpus(), emotions=EMOTIONS[::-1])),
        "corpus 'talks' has the emotions angry, neutral, sad, happy, the model was trained for ",
    ),
    "another width of a corpus": (
        lambda: linear(normalization={"text": Standardization.unchanged(9)}).predict(text_corpus()),
        "corpus 'talks' has text features of width 6, the model was trained on width 9: use features of the same",
    ),
    "another width of a conversation": (
        lambda: linear().predict([conversation(2), make_conversation({"text": np.ones((2, 9))})]),
        "conversation '1' has text features of width 9, the model was trained on width 6: use features of the same",
    ),
    "another width of frames": (
        lambda: framed().predict(frames(width=9)),
        "conversation '0' has text features of width 9, the model was trained on width 6: use features of the same",
    ),
    "frames for vectors": (
        lambda: linear().predict(frames()),
        "conversation '0' has frames in each utterance, the model was trained on one vector per utterance: use",
    ),
    "a corpus of frames for vectors": (
        lambda: linear().predict(make_corpus({"test": [frames()]}, name="talks")),
        "corpus 'talks' has frames in each utterance, the model was trained on one vector per utterance: use",
    ),
    "vectors for frames": (
        lambda: framed().predict(conversation()),
        "conversation '0' has one vector per utterance, the model was trained on frames in each utterance: use",
    ),
    "a corpus of vectors for frames": (
        lambda: framed().evaluate(text_corpus()),
        "corpus 'talks' has one vector per utterance, the model was trained on frames in each utterance: use",
    ),
    "no shared modality": (
        lambda: linear().predict(make_conversation({"audio": np.ones((2, 4)), "visual": np.ones((2, 5))}, id="a")),
        "conversation 'a' has only audio, visual, the model reads text: use features of at least one of these",
    ),
    "no shared modality of a corpus": (
        lambda: linear().predict(missing(tiny_corpus(), "text")),
        "corpus 'synthetic-iemocap4' has only audio, visual, the model reads text: use features of at least one of",
    ),
    "no conversation": (lambda: linear().predict([]), f"{NOT_CONVERSATIONS} an empty list"),
    "a number": (lambda: linear().predict(3), f"{NOT_CONVERSATIONS} int"),
    "nothing": (lambda: linear().predict(None), f"{NOT_CONVERSATIONS} NoneType"),
    "an array among conversations": (
        lambda: linear().predict([conversation(), np.ones((2, 6))]),
        f"{NOT_CONVERSATIONS} a list with ndarray",
    ),
    "a split of conversations": (
        lambda: linear().predict([conversation()], split="test"),
        "split='test' needs a corpus, but conversations were given: leave split out",
    ),
    "a split that is not there": (
        lambda: linear().predict(text_corpus(), split="train"),
        "corpus 'talks' has no split 'train', only test",
    ),
    "another context": (
        lambda: linear().predict(conversation(), context="none"),
        "data.context is 'none': choose one of mask_unlabelled, drop_unlabelled",
    ),
    "a label of no emotion": (
        lambda: linear().predict(conversation(3, id="a", labels=[0, 7, -1])),
        "conversation 'a': utterance '1' has label 7: with 4 emotions, expected 0 to 3, or -1 for unlabelled",
    ),
    "two conversations of one name": (
        lambda: linear().predict([conversation(3, id="a"), conversation(4, id="a")]),
        "conversation 'a': the id occurs 2 times in the split",
    ),
    "no labels to score": (
        lambda: linear().evaluate(make_corpus({"test": [conversation()]}, name="talks")),
        "corpus 'talks' has no labels to score: predict it instead",
    ),
    "probabilities that are not finite": (
        lambda: linear(rate=np.nan).probabilities([conversation()]),
        "the model predicts numbers that are not finite: train it with a lower learning rate",
    ),
    "a missing modality that the model cannot do without": (
        lambda: EnsemblePredictor((linear(normalization=both()),)).predict(conversation(id="a")),
        "conversation 'a' has no audio, and model 'linear' does not declare that it handles missing modalities "
        "(ModelSpec.handles_missing): add these features",
    ),
    "a modality that a corpus lacks": (
        lambda: linear(normalization=both()).evaluate(text_corpus()),
        "conversation '3' has no audio, and model 'linear' does not declare that it handles missing modalities ",
    ),
}


def both():
    """The normalisation of a model that reads text and audio."""
    return {m: Standardization.unchanged(WIDTHS[m]) for m in ("text", "audio")}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_one_line_that_names_it(misfit):
    call, message = MISFITS[misfit]
    with pytest.raises(UserError, match=f"^{re.escape(message)}") as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_modalities_that_the_model_does_not_read_are_left_out():
    corpus = text_corpus()
    more = [
        dataclasses.replace(
            c,
            features=c.features | {"visual": np.full((len(c), 5), 1e9, np.float32)},
            available=c.available | {"visual": np.ones(len(c), bool)},
        )
        for c in corpus.conversations("test")
    ]
    expected = linear().predict(corpus)
    assert_same_table(linear().predict(make_corpus({"test": more}, emotions=EMOTIONS)), expected)
    assert_same_table(linear().predict(more), expected)


# Missing modalities.


@pytest.mark.parametrize("modalities", [("audio",), ("text", "visual")], ids="+".join)
def test_a_missing_modality_is_one_that_no_utterance_has(modalities):
    corpus, predictor = tiny_corpus(), run().predictor
    conversations = corpus.conversations("test")
    without = [lacking(c, *modalities) for c in conversations]
    expected = predictor.predict([unavailable(c, *modalities) for c in conversations])
    assert_same_table(predictor.predict(without), expected)
    assert_same_table(predictor.predict(missing(corpus, *modalities), "test"), expected)
    whole = predictor.predict(conversations)
    columns = [f"probability_{emotion}" for emotion in EMOTIONS]
    assert (np.abs(whole[columns] - expected[columns]).max(axis=1) > 1e-4).mean() > 0.5
    assert expected[[f"weight_{m}" for m in modalities]].isna().all(axis=None)
    # Conversations that lack different modalities may come together.
    mixed = [without[0], *conversations[1:]]
    assert_same_table(predictor.predict(mixed)[: len(without[0])], expected[: len(without[0])])


def test_frames_of_a_missing_modality_are_none():
    variables = {"params": {"Dense_0": {"kernel": np.ones((10, 4), np.float32), "bias": np.zeros(4, np.float32)}}}
    model = Model(dataclasses.replace(POOLING, handles_missing=True), Pooling(4), cross_entropy)
    predictor = framed(model=model, variables=variables, normalization=both())
    marked = make_conversation({"text": [np.ones((3, 6))] * 2, "audio": [np.zeros((0, 4)), np.zeros((0, 4))]})
    assert_same_table(predictor.predict(lacking(marked, "audio")), predictor.predict(marked))


# What else a predictor gives.


def test_outputs_are_those_of_each_conversation_alone():
    predictor, examples = run().predictor, run().pipeline.examples["test"]

    def pick(output):
        return {"logits": output.logits, "text": output.features["text"]}

    found = predictor.outputs(examples, pick)
    shapes = predictor.output_shapes(examples, pick)
    assert [len(one["logits"]) for one in found] == list(map(len, examples))
    assert shapes["text"].shape[-1] == found[0]["text"].shape[-1]
    for one, (probabilities, _) in zip(found, alone(), strict=True):
        odds = np.exp(np.float64(one["logits"]))
        np.testing.assert_allclose(odds / odds.sum(-1, keepdims=True), probabilities, rtol=1e-4, atol=1e-6)
    together = predictor.probabilities(examples)
    assert together.dtype == np.float64
    np.testing.assert_allclose(together, np.concatenate([p for p, _ in alone()]), rtol=1e-4, atol=1e-6)


def scores_of(table):
    """Split -> scores of a table of predictions."""
    scores = {}
    for split, rows in table.groupby("split", sort=False):
        gold, guess = ([EMOTIONS.index(x) if x else -1 for x in rows[name]] for name in ("gold", "predicted"))
        scores[split] = classification_report(np.array(gold), np.array(guess), EMOTIONS)
    return scores


def test_scores_are_those_of_the_table():
    corpus = tiny_corpus()
    scores = run().predictor.evaluate(corpus)
    assert list(scores) == list(corpus.splits)
    assert scores == scores_of(run().predictor.predict(corpus))


def test_an_ensemble_predicts_the_mean():
    corpus, first = tiny_corpus(), run().predictor
    pipeline = run().pipeline
    state = create_train_state(build_model(pipeline.config), run().optimizer, pipeline.widths, 1)
    members = (first, dataclasses.replace(first, variables=state.variables))
    ensemble = EnsemblePredictor(members)
    tables, found = [member.predict(corpus) for member in members], ensemble.predict(corpus)
    numbers = list(found.columns[found.columns.str.contains("probability|weight|attention")])
    assert len(numbers) == len(EMOTIONS) + len(WIDTHS) + 1
    values = [table[numbers].to_numpy() for table in tables]
    assert np.nanmax(np.abs(values[0] - values[1])) > 1e-2
    np.testing.assert_allclose(found[numbers], np.mean(values, axis=0), rtol=1e-5, atol=1e-7)
    guesses = np.array(EMOTIONS)[np.mean(values, axis=0)[:, : len(EMOTIONS)].argmax(1)]
    assert list(found["predicted"]) == list(guesses)
    agreeing = np.mean([table["predicted"] == found["predicted"] for table in tables], axis=0)
    np.testing.assert_allclose(found["agreement"], agreeing)
    probabilities = np.stack(values)[..., : len(EMOTIONS)]
    # Of two numbers, the sample standard deviation is their distance divided by the square root of two.
    deviations = np.abs(probabilities[0] - probabilities[1]) / np.sqrt(2)
    spread = [f"sd_{emotion}" for emotion in EMOTIONS]
    np.testing.assert_allclose(found[spread], deviations, rtol=1e-4, atol=1e-6)
    others = found.columns.difference([*numbers, "predicted", "agreement", *spread])
    assert_same_table(found[others], tables[0][others])
    assert ensemble.task == first.task
    assert ensemble.evaluate(corpus) == scores_of(found)
    assert_same_table(EnsemblePredictor((first,)).predict(corpus), first.predict(corpus))


def assert_says_the_same(predicted, table):
    """What was predicted says the same as a table does."""
    conversations, card, found = predicted
    expected = prediction_table(conversations, card, found.probabilities, found.weights, found.attention, found.spread)
    assert_same_table(table, expected)


def test_conversations_have_what_the_table_has():
    corpus, ensemble = text_corpus(), EnsemblePredictor((linear(), linear(rate=0.3), linear(rate=-1.0)))
    assert_says_the_same(ensemble.predict_conversations(corpus, "test"), ensemble.predict(corpus, "test"))
    assert_says_the_same(ensemble.predict_conversations(corpus), ensemble.predict(corpus))
    talks = [conversation(n, id=f"c{n}", labels=[-1] * n) for n in (3, 1, 2)]
    found = ensemble.predict_conversations(talks)
    assert [(c.id, len(c)) for c in found.conversations] == [("c3", 3), ("c1", 1), ("c2", 2)]
    assert_says_the_same(found, ensemble.predict(talks))


def test_utterances_of_frames_are_joined_to_their_conversations():
    found = framed().predict_conversations([frames(3), frames(1), frames(2)])
    assert list(map(len, found.predictions.probabilities)) == list(map(len, found.conversations)) == [3, 1, 2]
    assert_says_the_same(found, framed().predict([frames(3), frames(1), frames(2)]))


def test_unlabelled_utterances_are_predicted_whatever_training_did_with_them():
    labelled = [conversation(4, id="a", labels=[0, -1, 1, -1])]
    found = linear(context="drop_unlabelled").predict_conversations(labelled)
    assert_says_the_same(found, linear().predict(labelled))


def test_an_ensembles_spread_by_hand():
    members = [
        [np.array([[0.6, 0.3, 0.1], [0.2, 0.6, 0.2]], np.float32)],
        [np.array([[0.2, 0.7, 0.1], [0.1, 0.7, 0.2]], np.float32)],
        [np.array([[0.7, 0.2, 0.1], [0.3, 0.2, 0.5]], np.float32)],
    ]
    means = mean_probabilities(members)
    np.testing.assert_allclose(means[0], [[0.5, 0.4, 0.1], [0.2, 0.5, 0.3]], rtol=1e-6)
    spread = member_spread(members, means)
    # Of the first: deviations .1, -.3, .2 and -.1, .3, -.2, whose squares sum to .14.
    expected = np.sqrt(np.array([[0.14, 0.14, 0], [0.02, 0.14, 0.06]]) / 2)
    np.testing.assert_allclose(spread.deviations[0], expected, atol=1e-7)
    np.testing.assert_allclose(spread.agreement[0], [2 / 3, 2 / 3], rtol=1e-6)
    assert member_spread(members[:1], means) is None


@pytest.mark.parametrize("context", ["mask_unlabelled", "drop_unlabelled"])
def test_a_run_predicts_what_is_in_its_directory(context, tmp_path, monkeypatch):
    for plot in ("plot_confusion", "plot_learning_curves"):
        monkeypatch.setattr(report, plot, lambda *_, **__: None)
    jmer.register_model(LINEAR)
    changes = {"data.context": context, "training.epochs": 1, "training.batch_size": 4, "training.parallel": "jit"}
    corpus = tiny_corpus()
    run = jmer.train(jmer.get_config("linear", changes), corpus, tmp_path / "run", log=None)
    for split in corpus.splits:
        written = read_predictions(run.folder / "predictions" / f"{split}.csv")
        assert_same_table(run.predict(corpus, split), written, rtol=1e-5)
        labels = np.concatenate([c.labels for c in corpus.conversations(split)])
        assert len(written) == (len(labels) if context == "mask_unlabelled" else (labels != -1).sum())
    assert run.evaluate(corpus) == run.scores
    assert len(run.predict(corpus, context="mask_unlabelled")) == sum(
        len(c) for s in corpus.splits for c in corpus.conversations(s)
    )
