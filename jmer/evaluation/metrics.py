"""Scores of a classification: everything follows from a confusion matrix of counts."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jmer.batch import UNLABELLED
from jmer.errors import UserError


class _FieldMapping(Mapping[str, Any]):
    """Base of a dataclass whose fields can be read as a mapping's items, too: `scores["accuracy"]`."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


@dataclasses.dataclass(frozen=True)
class ClassScores(_FieldMapping):
    """Scores of one emotion; precision, recall and F1 are fractions, 0 where they would divide by zero."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclasses.dataclass(frozen=True)
class Scores(_FieldMapping):
    """Scores of one split as fractions; `dataclasses.asdict` makes plain values of them, for JSON.

    A score is an attribute and a mapping's item: `scores.weighted_f1` is `scores["weighted_f1"]`.

    Attributes:
      accuracy: share of utterances predicted right ("WA" in the speech literature).
      weighted_f1: F1 per class, averaged with the classes' supports as weights.
      macro_f1: mean F1 over all classes of the corpus; one that neither occurs nor is predicted counts as 0.
      unweighted_accuracy: mean recall over the classes that occur ("UA").
      support: number of labelled utterances.
      classes: emotion -> its scores, in the order of the labels.
      confusion: `C` rows (gold) of `C` counts (predicted).
    """

    accuracy: float
    weighted_f1: float
    macro_f1: float
    unweighted_accuracy: float
    support: int
    classes: Mapping[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, count: int) -> np.ndarray:
    """Counts how often each emotion was predicted as each.

    Args:
      labels: int, any shape, gold emotion index; -1 = unlabelled, left out.
      predictions: int, the same shape, predicted emotion index.
      count: number of emotions `C`.

    Returns:
      int64 `[C, C]`, rows gold, columns predicted.

    Raises:
      UserError: if the shapes differ or an index lies outside the emotions.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise UserError(
            f"labels {labels.shape} and predictions {predictions.shape} differ in shape: give one per label"
        )
    labelled = labels != UNLABELLED
    gold, predicted = labels[labelled].astype(np.int64), predictions[labelled].astype(np.int64)
    for name, indices in (("label", gold), ("prediction", predicted)):
        outside = indices[(indices < 0) | (indices >= count)]
        if outside.size:
            raise UserError(
                f"{name} {outside[0]} is no index into {count} emotions: use 0..{count - 1}, or -1 as a label"
            )
    return np.bincount(gold * count + predicted, minlength=count * count).reshape(count, count)


def scores(confusion: np.ndarray, names: Sequence[str]) -> Scores:
    """Returns the scores that follow from a confusion matrix.

    They equal scikit-learn's with `labels=range(C)` and `zero_division=0`.

    Args:
      confusion: counts `[C, C]`, rows gold, columns predicted.
      names: names of the `C` emotions.

    Raises:
      UserError: if names and matrix don't match, or the matrix counts nothing.
    """
    confusion = np.asarray(confusion).astype(np.int64)
    if confusion.shape != (len(names), len(names)):
        raise UserError(
            f"a confusion matrix {confusion.shape} does not fit {len(names)} emotions: give one name per row"
        )
    support, predicted, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    total = int(support.sum())
    if total == 0:
        raise UserError("no utterance has a label, so there is nothing to score: choose a split with labels")
    precision, recall = _ratio(right, predicted), _ratio(right, support)
    f1 = _ratio(2 * right, support + predicted)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    return Scores(
        accuracy=int(right.sum()) / total,
        weighted_f1=float(np.average(f1, weights=support)),
        macro_f1=float(f1.mean()),
        unweighted_accuracy=float(recall[support > 0].mean()),
        support=total,
        classes={name: ClassScores(*row) for name, row in zip(names, zip(*columns, strict=True), strict=True)},
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def classification_report(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> Scores:
    """Scores predictions against labels.

    Args:
      labels: int, any shape, gold emotion index; -1 = unlabelled, left out.
      predictions: int, the same shape, predicted emotion index.
      names: names of the emotions; an index points into it.

    Raises:
      UserError: if the shapes differ, an index lies outside the names, or no utterance is labelled.
    """
    return scores(confusion_matrix(labels, predictions, len(names)), names)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and sample standard deviation (denominator n - 1) of one score over seeds.

    The deviation of a single value is NaN: one run says nothing about the spread.

    Raises:
      UserError: if there is no value.
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise UserError("no values to average: give the score of at least one seed")
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else float("nan")


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
