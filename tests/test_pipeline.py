"""A pipeline prepares a corpus for a model once: normalised examples, batches and plans that agree with each other."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from tiny import EMOTIONS, LINEAR, WIDTHS, by_shifts, tiny_config, tiny_corpus

from jmer.config import base_config
from jmer.data import make_corpus, normalization
from jmer.data.batching import locate
from jmer.data.examples import make_examples
from jmer.data.resident import gather, make_resident
from jmer.data.synthetic import Size, generate
from jmer.errors import UserError
from jmer.models import register_model
from jmer.pipeline import Pipeline


@functools.cache
def corpus():
    return tiny_corpus()


@functools.cache
def pipeline():
    return Pipeline.for_training(tiny_config(), corpus())


def moved(conversation, modality, by):
    """Returns the conversation with a modality's available features moved."""
    there = conversation.available[modality][:, None]
    features = conversation.features[modality]
    return dataclasses.replace(
        conversation, features=conversation.features | {modality: np.where(there, features + by, features)}
    )


def with_splits(**splits):
    """The corpus with other conversations in some of its splits."""
    return make_corpus({s: splits.get(s, corpus().conversations(s)) for s in corpus().splits}, corpus().card)


# Normalisation.


def test_normalisation_is_fitted_on_the_training_split_alone():
    made = pipeline()
    training = corpus().conversations("train")
    for m in WIDTHS:
        rows = np.concatenate([c.features[m][c.available[m]] for c in training]).astype(np.float64)
        np.testing.assert_allclose(made.normalization[m].mean, rows.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made.normalization[m].scale, rows.std(0), rtol=1e-5, atol=1e-6)
    held_out = {s: [moved(c, "audio", 100.0) for c in corpus().conversations(s)] for s in ("validation", "test")}
    other = Pipeline.for_training(tiny_config(), with_splits(**held_out))
    jax.tree.map(np.testing.assert_array_equal, other.normalization, made.normalization)
    shifted = Pipeline.for_training(tiny_config(), with_splits(train=[moved(c, "audio", 100.0) for c in training]))
    np.testing.assert_allclose(shifted.normalization["audio"].mean, made.normalization["audio"].mean + 100, rtol=1e-5)


def test_every_split_is_normalised_alike():
    made = pipeline()
    assert list(made.examples) == list(corpus().splits)
    for split, examples in made.examples.items():
        for example, c in zip(examples, corpus().conversations(split), strict=True):
            assert example.id == c.id
            for m, s in made.normalization.items():
                expected = np.where(c.available[m][:, None], (c.features[m] - s.mean) / s.scale, 0)
                np.testing.assert_allclose(example.features[m], expected, rtol=1e-6)


def test_another_corpus_is_normalised_as_the_training_corpus_was():
    other = with_splits(test=[moved(c, "text", 3.0) for c in corpus().conversations("test")])
    other = make_corpus({"test": other.conversations("test")}, other.card)
    made = Pipeline.for_corpus(pipeline().config, other, pipeline().normalization)
    assert made.normalization is pipeline().normalization and list(made.examples) == ["test"]
    for example, before in zip(made.examples["test"], pipeline().examples["test"], strict=True):
        expected = before.features["text"] + 3 / pipeline().normalization["text"].scale
        there = example.available["text"]
        np.testing.assert_allclose(example.features["text"][there], expected[there], rtol=1e-4, atol=1e-5)
        assert (example.features["text"][~there] == 0).all()


def test_features_may_stay_as_they_are():
    made = Pipeline.for_training(tiny_config(data__normalization="none"), corpus())
    for example, c in zip(made.examples["test"], corpus().conversations("test"), strict=True):
        for m in WIDTHS:
            np.testing.assert_array_equal(example.features[m], c.features[m])


def test_unlabelled_utterances_that_are_dropped_do_not_count():
    made = Pipeline.for_training(tiny_config(data__context="drop_unlabelled"), corpus())
    examples = make_examples(corpus().conversations("train"), frames=False, context="drop_unlabelled")
    jax.tree.map(np.testing.assert_array_equal, made.normalization, normalization.fit(examples, WIDTHS))
    assert (made.labels("train") >= 0).all()
    assert len(made.labels("train")) == (pipeline().labels("train") >= 0).sum()


# The configuration.


def test_the_configuration_is_fitted_to_the_corpus():
    config = tiny_config(model__modalities=("text", "audio"), loss__class_weights="inverse_freq")
    made = Pipeline.for_training(config, corpus())
    assert (made.config.model.num_classes, made.config.model.modalities) == (len(EMOTIONS), ("text", "audio"))
    assert made.widths == {"text": WIDTHS["text"], "audio": WIDTHS["audio"]}
    labels = made.labels("train")
    counts = np.bincount(labels[labels >= 0], minlength=len(EMOTIONS))
    np.testing.assert_allclose(made.config.loss.class_weight_values, counts.sum() / counts)
    # The given one stays as it is.
    assert config.model.num_classes == 0 and config.loss.class_weight_values == ()


def test_weights_of_emotions_may_grow_slower_than_the_emotions_are_rare():
    found = {}
    for rule in ("inverse_freq", "log_inverse_freq"):
        config = Pipeline.for_training(tiny_config(loss__class_weights=rule), corpus()).config
        found[rule] = config.loss.class_weight_values
    labels = np.concatenate([c.labels for c in corpus().conversations("train")])
    shares = np.array([(labels == i).sum() / (labels >= 0).sum() for i in range(len(EMOTIONS))])
    np.testing.assert_allclose(found["log_inverse_freq"], -np.log(shares))
    np.testing.assert_allclose(found["log_inverse_freq"], np.log(found["inverse_freq"]))


MISTAKES = {
    "training__epochs": (0, "training.epochs is 0: give at least 1"),
    "training__batch_size": (0, "training.batch_size is 0: give at least 1"),
    "model__modalities": (("text", "smell"), "model.modalities has smell, but corpus 'synthetic-iemocap4' has only"),
    "data__context": ("none", "data.context is 'none': choose one of mask_unlabelled, drop_unlabelled"),
    "data__normalization": ("robust", "data.normalization is 'robust': choose standard or none"),
}


@pytest.mark.parametrize("field", MISTAKES)
def test_what_cannot_be_is_refused_before_anything_is_prepared(field):
    value, message = MISTAKES[field]
    with pytest.raises(UserError, match=f"^{message}") as refusal:
        Pipeline.for_training(tiny_config(**{field: value}), corpus())
    assert "\n" not in str(refusal.value)


def test_labels_are_those_of_the_corpus():
    for split in corpus().splits:
        expected = np.concatenate([c.labels for c in corpus().conversations(split)])
        np.testing.assert_array_equal(pipeline().labels(split), expected)
        assert pipeline().is_labelled(split)
    assert not pipeline().is_labelled("dev")
    bare = [dataclasses.replace(c, labels=np.full(len(c), -1, np.int32)) for c in corpus().conversations("test")]
    assert not Pipeline.for_training(tiny_config(), with_splits(test=bare)).is_labelled("test")


# Batches.

CURRICULA = [0, 3]


def planned(made, epoch, **options):
    """The conversations of each active step of an epoch's plan, in their rows."""
    plan = made.epoch_plan(epoch, seed=made.config.seed, **options)
    return plan, [ids for ids, active in zip(plan.conversation_ids, plan.active, strict=True) if active]


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("curriculum", CURRICULA)
def test_plans_and_batches_hold_the_same_conversations_in_the_same_order(curriculum, multiple):
    config = tiny_config(**by_shifts(curriculum), training__epochs=4, seed=3)
    made = Pipeline.for_training(config, corpus())
    shapes = set()
    for epoch in range(4):
        batches = list(made.train_batches(epoch, row_multiple=multiple))
        plan, active = planned(made, epoch, row_multiple=multiple)
        assert len(batches) == len(active) == made.schedule.steps[epoch]
        for batch, ids in zip(batches, active, strict=True):
            np.testing.assert_array_equal(batch.conversation_ids, ids)
        seen = np.concatenate([ids[ids >= 0] for ids in active])
        np.testing.assert_array_equal(np.sort(seen), made.schedule.conversation_ids[epoch])
        shapes |= {(batch.mask.shape, ids.shape) for batch, ids in zip(batches, active, strict=True)}
        shapes |= {plan.conversation_ids.shape}
        assert len(batches[0].mask) % multiple == 0
    # One program serves every epoch, whichever conversations it holds.
    assert len(shapes) == 2


def test_an_epoch_may_start_anywhere():
    made = pipeline()
    whole = [batch.conversation_ids for batch in made.train_batches(1)]
    for start in range(len(whole) + 1):
        rest = [batch.conversation_ids for batch in made.train_batches(1, start=start)]
        plan, active = planned(made, 1, start=start)
        for found in (rest, active):
            assert len(found) == len(whole) - start
            jax.tree.map(np.testing.assert_array_equal, found, whole[start:])
        assert not plan.active[:start].any()


def test_the_order_follows_the_seed_and_the_epoch():
    made = pipeline()

    def order(epoch, seed):
        return made.epoch_plan(epoch, seed=seed).conversation_ids.tolist()

    assert order(0, 0) == order(0, 0)
    assert len({str(order(*pair)) for pair in itertools.product(range(2), range(3))}) == 6


def test_batches_of_a_plan_are_gathered_on_the_device():
    made = pipeline()
    resident = make_resident(made.examples["train"], made.widths)
    for batch, ids in zip(made.train_batches(0), planned(made, 0)[1], strict=True):
        jax.tree.map(np.testing.assert_array_equal, gather(resident, ids, made.packing.length), batch)


@pytest.mark.parametrize("multiple", [1, 8])
def test_one_layout_holds_every_split_for_evaluation(multiple):
    made, shapes = pipeline(), set()
    for split, examples in made.examples.items():
        seen = []
        for batch in made.evaluation_batches(split, row_multiple=multiple):
            shapes.add(batch.mask.shape)
            for position, row, _, real in locate(batch.conversation_ids, examples):
                seen.append(position)
                np.testing.assert_array_equal(batch.labels[row, real], examples[position].labels)
                np.testing.assert_array_equal(batch.features["text"][row, real], examples[position].features["text"])
        assert sorted(seen) == list(range(len(examples)))
    assert len(shapes) == 1


@pytest.mark.parametrize("packs", [False, True])
def test_rows_hold_several_conversations_if_the_model_keeps_them_apart(packs):
    register_model(dataclasses.replace(LINEAR, name=f"packing_{packs}", packing=packs))
    config = base_config(f"packing_{packs}")
    config.training.batch_size = 8
    made = Pipeline.for_training(config, corpus())
    assert (made.packing.slots > 1) == (made.evaluation_layout["packing"].slots > 1) == packs
    for batch in itertools.chain(made.train_batches(0), made.evaluation_batches("test")):
        assert packs or ((batch.conversation_ids >= 0).sum(1) <= 1).all()


def test_utterances_with_frames_are_padded_to_few_lengths():
    sizes = {"train": Size(6, 26, 8), "validation": Size(3, 12, 6)}
    made = generate("synthetic-iemocap4-frames", sizes=sizes, widths={"text": 6, "audio": 4})
    config = base_config("lpgnet")
    config.model.mode = "frame"
    config.training.update(batch_size=4, epochs=2, buckets=2)
    framed = Pipeline.for_training(config, made)
    assert {split: len(examples) for split, examples in framed.examples.items()} == {"train": 26, "validation": 12}
    training = [batch for epoch in range(2) for batch in framed.train_batches(epoch)]
    for batches, count in ((training[:7], 26), (training[7:], 26), ([*framed.evaluation_batches("validation")], 12)):
        ids = np.concatenate([batch.conversation_ids.ravel() for batch in batches])
        assert sorted(ids[ids >= 0]) == list(range(count))
    assert len({batch.frames["audio"].shape for batch in training}) == 2
    assert all(batch.mask.shape == (4, 1) for batch in training)
