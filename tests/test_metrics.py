"""Scores equal scikit-learn's to the last bit, on random and on degenerate inputs."""

import dataclasses
import json
import math

import numpy as np
import pytest
import sklearn.metrics as reference

from jmer.errors import UserError
from jmer.evaluation.metrics import classification_report, confusion_matrix, mean_and_deviation, scores_from_confusion


def random_case(seed):
    """Labels and predictions of random size, class count and skew, with unlabelled and never-occurring classes."""
    rng = np.random.default_rng(seed)
    count, n = int(rng.integers(2, 11)), int(rng.integers(1, 400))
    skew = rng.dirichlet(np.full(count, 0.3))
    labels = rng.choice(count, n, p=skew).astype(np.int32)
    predictions = np.where(rng.random(n) < rng.random(), labels, rng.choice(count, n, p=rng.permutation(skew)))
    labels[1:][rng.random(n - 1) < 0.2] = -1
    return labels, predictions, count


DEGENERATE = {
    "one utterance, right": ([1], [1], 3),
    "one utterance, wrong": ([1], [2], 3),
    "all of one class": ([0] * 5, [0] * 5, 2),
    "always the same prediction": ([0, 1, 2, 2, 1], [1] * 5, 3),
    "nothing right": ([0, 1, 0], [1, 0, 1], 2),
    "predicted class without support": ([0, 0, 1], [2, 0, 1], 4),
    "mostly unlabelled": ([-1, -1, 0, -1], [1, 1, 0, 0], 2),
}
CASES = [*(random_case(seed) for seed in range(60)), *DEGENERATE.values()]


@pytest.mark.parametrize("labels, predictions, count", CASES)
def test_equal_to_scikit_learn(labels, predictions, count):
    names = [f"emotion {i}" for i in range(count)]
    got = classification_report(labels, predictions, names)
    known = np.asarray(labels) >= 0
    gold, predicted = np.asarray(labels)[known], np.asarray(predictions)[known]

    assert got.accuracy == reference.accuracy_score(gold, predicted)
    for average, value in (("weighted", got.weighted_f1), ("macro", got.macro_f1)):
        options = {"labels": range(count), "average": average, "zero_division": 0}
        assert value == reference.f1_score(gold, predicted, **options)
    for majority, name in enumerate(names):
        others = [i for i in range(count) if i != majority]
        expected = reference.f1_score(gold, predicted, labels=others, average="micro", zero_division=0)
        scored = classification_report(labels, predictions, names, name)
        assert (scored.micro_f1_without_majority, scored.majority_emotion) == (expected, name)
    assert got.micro_f1_without_majority is None
    occurring = np.unique(gold)
    assert got.unweighted_accuracy == reference.recall_score(gold, predicted, labels=occurring, average="macro")
    per_class = reference.precision_recall_fscore_support(gold, predicted, labels=range(count), zero_division=0)
    rows = [dataclasses.astuple(row) for row in got.classes.values()]
    assert [list(column) for column in zip(*rows, strict=True)] == [list(column) for column in per_class]
    np.testing.assert_array_equal(got.confusion, reference.confusion_matrix(gold, predicted, labels=range(count)))


@pytest.mark.parametrize("labels, predictions, count", CASES)
def test_identities(labels, predictions, count):
    got = classification_report(labels, predictions, [str(i) for i in range(count)])
    rows = got.classes.values()
    assert got.support == sum(row.support for row in rows) == np.sum(np.asarray(labels) >= 0)
    assert got.weighted_f1 == pytest.approx(sum(row.f1 * row.support for row in rows) / got.support, abs=1e-12)
    assert got.accuracy == pytest.approx(sum(row.recall * row.support for row in rows) / got.support, abs=1e-12)
    assert got.accuracy * got.support == pytest.approx(round(got.accuracy * got.support), abs=1e-9)


def test_macro_counts_a_class_that_never_occurs_and_unweighted_accuracy_does_not():
    got = classification_report([0, 0, 1], [0, 0, 1], ["calm", "angry", "afraid"])
    assert (got.accuracy, got.weighted_f1, got.unweighted_accuracy) == (1, 1, 1)
    assert got.macro_f1 == pytest.approx(2 / 3)


def test_confusion_matrix_has_gold_in_rows_and_adds_up():
    np.testing.assert_array_equal(confusion_matrix([0, 0, 1, -1], [1, 1, 0, 0], 2), [[0, 2], [1, 0]])
    labels, predictions, count = random_case(3)
    halves = [confusion_matrix(labels[part], predictions[part], count) for part in (slice(9), slice(9, None))]
    whole = confusion_matrix(labels, predictions, count)
    assert whole.dtype == np.int64
    np.testing.assert_array_equal(sum(halves), whole)
    padded = confusion_matrix(np.append(labels, [-1] * 4)[None], np.append(predictions, [0] * 4)[None], count)
    np.testing.assert_array_equal(padded, whole)


def test_scores_take_float_counts_and_become_json():
    counts = np.array([[3, 1], [0, 2]])
    got = scores_from_confusion(counts.astype(np.float32), ("calm", "angry"))
    assert got == scores_from_confusion(counts, ("calm", "angry"))
    assert json.loads(json.dumps(dataclasses.asdict(got)))["classes"]["angry"]["precision"] == pytest.approx(2 / 3)


def test_scores_are_read_as_attributes_and_as_a_mapping():
    got = scores_from_confusion(np.array([[3, 1], [0, 2]]), ("calm", "angry"))
    saved = json.loads(json.dumps(dataclasses.asdict(got)))
    assert list(got) == list(got.keys()) == list(dict(got)) == list(saved)
    assert list(saved) == [
        "accuracy",
        "weighted_f1",
        "macro_f1",
        "unweighted_accuracy",
        "support",
        "classes",
        "confusion",
        "majority_emotion",
        "micro_f1_without_majority",
        "attributes",
    ]
    for name in got:
        assert got[name] is getattr(got, name)
    assert got["weighted_f1"] == saved["weighted_f1"] == pytest.approx((4 * 6 / 7 + 2 * 4 / 5) / 6)
    assert {name: dict(row) for name, row in got["classes"].items()} == saved["classes"]
    assert got["classes"]["calm"]["recall"] == 0.75
    for missing in ("f1", "keys", "__class__"):
        assert missing not in got
        with pytest.raises(KeyError, match=missing):
            got[missing]


def test_wrong_arguments_are_refused():
    with pytest.raises(UserError, match=r"label 7 is not an index into 3 emotions: use 0..2"):
        confusion_matrix([0, 7], [0, 0], 3)
    with pytest.raises(UserError, match="prediction -1 is not an index"):
        confusion_matrix([0, 1], [0, -1], 3)
    with pytest.raises(UserError, match="differ in shape"):
        confusion_matrix([0, 1], [0], 3)
    with pytest.raises(UserError, match="does not fit 3 emotions"):
        scores_from_confusion(np.eye(2), ["a", "b", "c"])
    for labels in ([], [-1, -1]):
        with pytest.raises(UserError, match="nothing to score"):
            classification_report(labels, [0] * len(labels), ["a", "b"])


def test_mean_and_deviation():
    mean, deviation = mean_and_deviation([0.5, 0.6, 0.8])
    assert mean == pytest.approx(1.9 / 3)
    assert deviation == pytest.approx(math.sqrt(((0.5 - mean) ** 2 + (0.6 - mean) ** 2 + (0.8 - mean) ** 2) / 2))
    single = mean_and_deviation([0.5])
    assert single[0] == 0.5 and math.isnan(single[1])
    with pytest.raises(UserError, match="no values"):
        mean_and_deviation([])
