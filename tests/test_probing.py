"""The probe finds what was learnt on training labels, and other distributions; without either it is quiet."""

import dataclasses

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import f1_score

from jmer.data import make_conversation, make_corpus, probe, samples
from jmer.data.linear_probe import conversation_folds, discriminant, held_out_scores, moments
from jmer.data.probing import FAR_BELOW
from jmer.data.resampling import confusions, estimate, exchange_test, largest_drop, weighted_f1

EMOTIONS = ("happy", "sad", "neutral")
SIZES = {"train": 40, "validation": 12}


def corpus(seed=0, *, sizes=SIZES, change=lambda split, labels, features, rng: features, **more):
    """Conversations with moods and offsets of their own; `change` makes other features of a split."""
    rng = np.random.default_rng(seed)
    centres = {m: 0.5 * rng.normal(size=(len(EMOTIONS), width)) for m, width in (("text", 12), ("audio", 6))}

    def made(split, i):
        labels = rng.choice(len(EMOTIONS), rng.integers(5, 20), p=rng.dirichlet(np.full(len(EMOTIONS), 2.0)))
        features = {
            m: c[labels] + 0.4 * rng.normal(size=c.shape[1]) + rng.normal(size=(len(labels), c.shape[1]))
            for m, c in centres.items()
        }
        features = change(split, labels, features, rng)
        return make_conversation(
            features, labels=labels, id=f"{split}{i}", speakers=["AB"[k % 2] for k in range(len(labels))], **more
        )

    splits = {split: [made(split, i) for i in range(count)] for split, count in sizes.items()}
    return make_corpus(splits, emotions=EMOTIONS)


def verdicts(findings, check="linear probe"):
    return {f.subject: f.verdict for f in findings if f.check == check}


# The classifier and its statistics.


def sample(seed=0, count=200, width=7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return (rng.normal(size=(count, width)) + 2 * np.eye(3, width)[labels]).astype(np.float32), labels


def test_the_classifier_is_a_shrunken_discriminant_analysis():
    features, labels = sample()
    found = discriminant(moments(features, labels, 3))
    centred = features - np.stack([features[labels == c].mean(0) for c in range(3)])[labels]
    covariance = centred.T @ centred / len(features)
    n, p, trace, squares = len(features), 7, np.trace(covariance), np.square(covariance).sum()
    shrinkage = ((1 - 2 / p) * squares + trace**2) / ((n + 1 - 2 / p) * (squares - trace**2 / p))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=min(1.0, shrinkage)).fit(features, labels)
    scores = found.scores(features)
    expected = reference.decision_function(features)
    np.testing.assert_allclose(scores - scores[:, :1], expected - expected[:, :1], rtol=1e-3, atol=1e-3)


def test_an_utterance_is_scored_by_what_has_not_seen_its_conversation():
    features, labels = sample()
    folds = conversation_folds(np.arange(200) // 10)
    assert np.bincount(folds).tolist() == [40] * 5
    assert all(len(set(folds[i : i + 10])) == 1 for i in range(0, 200, 10))
    scores, whole = held_out_scores(features, labels, folds, 3)
    rest = discriminant(moments(features[folds != 2], labels[folds != 2], 3))
    np.testing.assert_allclose(scores[folds == 2], rest.scores(features[folds == 2]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(whole.products, features.T @ features, rtol=1e-4)


def test_a_class_that_does_not_occur_and_features_that_never_vary_are_no_obstacle():
    features, labels = sample()
    found = discriminant(moments(0 * features, np.minimum(labels, 1), 3))
    assert set(found.scores(features).argmax(1)) == {1}


def test_scores_and_their_errors():
    rng = np.random.default_rng(0)
    gold, given, owners = rng.integers(0, 3, 400), rng.integers(0, 3, 400), np.repeat(np.arange(40), 10)
    given = np.where(rng.random(400) < 0.5, gold, given)
    per_conversation = confusions(gold, given, owners, 3)
    assert per_conversation.shape == (40, 3, 3)
    assert weighted_f1(per_conversation.sum(0)) == pytest.approx(f1_score(gold, given, average="weighted"))
    found = estimate(per_conversation)
    drawn = [weighted_f1(per_conversation[rng.integers(0, 40, 40)].sum(0)) for _ in range(2000)]
    assert found.error == pytest.approx(np.std(drawn), rel=0.15)
    assert largest_drop(found, found) == pytest.approx(2.0227 * np.sqrt(2) * found.error, rel=1e-3)
    assert estimate(per_conversation[:1]).interval == (0, 1)


def test_the_exchange_test_is_uniform_without_a_difference_and_small_with_one():
    def excess(inside, outside):
        return outside[..., 0] / outside[..., 1] - inside[..., 0] / inside[..., 1]

    def chance(seed, shift=0.0):
        rng = np.random.default_rng(seed)
        sums = np.stack([rng.normal(size=30) * 5, np.full(30, 10.0)], axis=1)
        return exchange_test(sums[:24], sums[24:] + np.array([shift, 0]), excess)

    found = np.array([chance(seed) for seed in range(200)])
    assert 0.05 < np.mean(found < 0.1) < 0.17 and 0.4 < np.mean(found < 0.5) < 0.6
    assert chance(0, shift=20) < 0.002


# What the probe says.


def test_a_modality_that_was_learnt_on_training_labels_is_a_warning():
    """Its extractor has learnt the labels of training by heart and knows nothing of the others."""
    by_heart = np.random.default_rng(1).normal(size=(len(EMOTIONS), 6)) * 2

    def learnt(split, labels, features, rng):
        known = labels if split == "train" else rng.integers(0, len(EMOTIONS), len(labels))
        return features | {"audio": by_heart[known] + rng.normal(size=(len(labels), 6))}

    found = probe(corpus(change=learnt))
    assert verdicts(found)["audio, validation"] == verdicts(found)["all modalities, validation"] == "warning"
    assert verdicts(found)["text, validation"] in ("fine", "open")
    assert verdicts(found)["audio, train"] == "note" and verdicts(found)["text, train"] == "fine"
    assert verdicts(found, "features")["audio, validation"] == "fine"
    (leak,) = (f for f in found if (f.check, f.subject) == ("linear probe", "audio, validation"))
    assert "learnt from the training labels" in leak.meaning and "model.modalities" in leak.meaning


def test_labels_that_leak_into_another_split_are_a_warning():
    def leaked(split, labels, features, rng):
        extra = 3.0 if split == "validation" else 0.5
        return features | {"audio": extra * np.eye(3, 6)[labels] + rng.normal(size=(len(labels), 6))}

    found = {(f.check, f.subject): f for f in probe(corpus(change=leaked))}
    assert "labels of validation" in found["linear probe", "audio, validation"].meaning


@pytest.mark.parametrize("shift", [lambda x: x + 3, lambda x: 3 * x], ids=["offset", "scale"])
def test_features_of_another_kind_are_a_note(shift):
    def moved(split, labels, features, rng):
        return features | {"audio": shift(features["audio"])} if split == "validation" else features

    found = verdicts(probe(corpus(change=moved)), "features")
    assert found == {"text, validation": "fine", "audio, validation": "note"}


def test_corpora_without_a_leak_are_quiet():
    """At most one false note in as many corpora, whose conversations have moods and offsets of their own."""
    alarms = [
        f
        for seed in range(12)
        for f in probe(corpus(seed, sizes={"train": 30, "validation": 6 + seed}))
        if f.verdict in ("note", "warning")
    ]
    assert not [f for f in alarms if f.verdict == "warning"] and len(alarms) <= 1, alarms


def test_few_conversations_are_no_ground_for_a_verdict():
    found = probe(corpus(sizes={"train": 40, "validation": 2}))
    assert verdicts(found)["audio, validation"] == "open"
    assert f"2 conversations are too few to rule out that it falls by {100 * FAR_BELOW:.0f} points" in [
        f.meaning for f in found
    ]
    assert set(verdicts(probe(corpus(sizes={"train": 3, "validation": 3}))).values()) == {"open"}


def unlabelled(made):
    splits = {
        s: [dataclasses.replace(c, labels=np.full(len(c), -1, np.int32)) if s != "train" else c for c in found]
        for s, found in ((s, made.conversations(s)) for s in made.splits)
    }
    return make_corpus(splits, made.card)


def without_audio(made):
    splits = {
        s: [
            dataclasses.replace(
                c,
                features={**c.features, "audio": np.zeros_like(c.features["audio"])},
                available={**c.available, "audio": np.zeros(len(c), bool)},
            )
            for c in made.conversations(s)
        ]
        for s in made.splits
    }
    return make_corpus(splits, made.card)


def with_frames(made):
    splits = {
        s: [
            dataclasses.replace(c, features={m: [np.stack([v, v]) for v in x] for m, x in c.features.items()})
            for c in made.conversations(s)
        ]
        for s in made.splits
    }
    return make_corpus(splits, dataclasses.replace(made.card, frames=True))


def test_corpora_of_any_kind_are_probed():
    plain = corpus()
    assert {f.check for f in probe(unlabelled(plain))} == {f.check for f in probe(plain)}
    assert all(subject.endswith("train") for subject in verdicts(probe(unlabelled(plain))))
    assert verdicts(probe(without_audio(plain)))["audio, train"] == "open"
    assert {f.measured for f in probe(with_frames(plain))} == {f.measured for f in probe(plain)}
    assert probe(corpus(sizes={"test": 3})) == ()
    assert set(verdicts(probe(corpus(sizes={"train": 30})))) == {"text, train", "audio, train", "all modalities, train"}
    wide = corpus(change=lambda s, y, x, rng: x | {"text": np.tile(x["text"], (1, 60))})
    assert verdicts(probe(wide))["text, validation"] == verdicts(probe(plain))["text, validation"]


def test_the_same_contents_are_probed_once():
    assert probe(corpus(3)) is probe(corpus(3)) is not probe(corpus(4))
    made = corpus(3)
    renamed = make_corpus({"train": made.conversations("train"), "test": made.conversations("validation")}, made.card)
    assert {f.subject.split(", ")[-1] for f in probe(renamed)} == {"train", "test"}


def test_of_a_large_split_a_sample_is_probed(monkeypatch):
    monkeypatch.setitem(samples.MOST_UTTERANCES, "train", 300)
    found = probe(corpus(5))
    count, total = map(int, next(f for f in found if f.check == "sample").measured.split()[:3:2])
    assert 250 < count <= 300 < total and verdicts(found)["text, train"] == "fine"
