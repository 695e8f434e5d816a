"""Scores of a split; those of emotions are all computed from a confusion matrix."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from jmer.batch import UNLABELLED
from jmer.errors import UserError
from jmer.evaluation.attribute_scores import AttributeScores
from jmer.evaluation.field_mapping import FieldMapping


@dataclasses.dataclass(frozen=True)
class ClassScores(FieldMapping):
    r"""Scores of one emotion, as fractions; 0 where the denominator is 0.

    With $N_{ij}$ utterances of emotion $i$ that were predicted as $j$:

    .. math::
      P_i = \frac{N_{ii}}{\sum_j N_{ji}}, \quad R_i = \frac{N_{ii}}{\sum_j N_{ij}}, \quad
      F_i = \frac{2 P_i R_i}{P_i + R_i} = \frac{2 N_{ii}}{\sum_j N_{ij} + \sum_j N_{ji}}

    Attributes:
      precision: $P_i$.
      recall: $R_i$.
      f1: $F_i$.
      support: number of utterances labelled with the emotion, $n_i = \sum_j N_{ij}$.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclasses.dataclass(frozen=True)
class Scores(FieldMapping):
    r"""Scores of one split, as fractions.

    A score is an attribute and an item, so `scores.weighted_f1` equals `scores["weighted_f1"]`, and
    `dataclasses.asdict` gives plain values for JSON. In the notation of `ClassScores`, with $n = \sum_i n_i$:

    .. math::
      \text{accuracy} = \frac{1}{n} \sum_i N_{ii}, \quad
      \text{weighted F1} = \sum_i \frac{n_i}{n} F_i, \quad
      \text{macro F1} = \frac{1}{C} \sum_i F_i, \quad
      \text{micro F1 without } m = \frac{2 \sum_{i \ne m} N_{ii}}{\sum_{i \ne m} \sum_j (N_{ij} + N_{ji})}

    Attributes:
      accuracy: fraction of utterances predicted correctly ("WA" in the speech literature).
      weighted_f1: mean F1 over the emotions, weighted by their support.
      macro_f1: unweighted mean F1 over all `C` emotions; one that neither occurs nor is predicted counts as 0.
      unweighted_accuracy: mean recall over the emotions that occur ("UA").
      support: number of labelled utterances.
      classes: emotion -> its scores, in the order of the label indices.
      confusion: `C` rows (gold) of `C` counts (predicted).
      majority_emotion: the emotion $m$ that the micro F1 leaves out; empty = there is none.
      micro_f1_without_majority: F1 of the true positives, false positives and false negatives of all emotions but one,
        summed: the measure of DailyDialog, without its neutral utterances; None without a majority emotion.
      attributes: attribute that the model learned -> its scores; without those that are labelled nowhere.
    """

    accuracy: float
    weighted_f1: float
    macro_f1: float
    unweighted_accuracy: float
    support: int
    classes: Mapping[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    majority_emotion: str = ""
    micro_f1_without_majority: float | None = None
    attributes: Mapping[str, AttributeScores] = dataclasses.field(default_factory=dict)


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int) -> np.ndarray:
    """Returns the counts of each pair of gold and predicted emotion.

    Args:
      labels: int, any shape, gold emotion indices; -1 = unlabelled, not counted.
      predictions: int, the same shape, predicted emotion indices.
      num_classes: number of emotions `C`.

    Returns:
      int64 `[C, C]`, gold emotions in rows, predicted ones in columns.

    Raises:
      UserError: if the shapes differ or an index is out of range.

    >>> confusion_matrix([0, 0, 1, -1], [0, 1, 1, 0], 2)
    array([[1, 1],
           [0, 1]])
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise UserError(
            f"labels {labels.shape} and predictions {predictions.shape} differ in shape: give one prediction per label"
        )
    labelled = labels != UNLABELLED
    gold, predicted = labels[labelled].astype(np.int64), predictions[labelled].astype(np.int64)
    for name, indices in (("label", gold), ("prediction", predicted)):
        outside = indices[(indices < 0) | (indices >= num_classes)]
        if outside.size:
            raise UserError(
                f"{name} {outside[0]} is not an index into {num_classes} emotions: use 0..{num_classes - 1}, "
                "or -1 for a missing label"
            )
    counts = np.bincount(gold * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def mean_cross_entropy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Returns the mean of -log p over the labelled utterances, p the probability of the gold emotion.

    Args:
      labels: int `[N]`, gold emotion indices; -1 = unlabelled, not counted.
      probabilities: float `[N, C]`; those that are 0 by rounding count as the least positive number of float32.

    >>> round(mean_cross_entropy([0, 1, -1], [[0.5, 0.5], [0.75, 0.25], [0.0, 1.0]]), 6)
    1.039721
    """
    labels = np.asarray(labels)
    labelled = np.flatnonzero(labels != UNLABELLED)
    gold = np.asarray(probabilities, np.float64)[labelled, labels[labelled]]
    return float(-np.log(np.maximum(gold, np.finfo(np.float32).tiny)).mean())


def scores_from_confusion(confusion: npt.ArrayLike, emotions: Sequence[str], majority_emotion: str = "") -> Scores:
    """Returns the scores of a confusion matrix.

    They equal scikit-learn's with `labels=range(C)` and `zero_division=0`.

    Args:
      confusion: counts `[C, C]`, gold emotions in rows, predicted ones in columns.
      emotions: names of the `C` emotions.
      majority_emotion: the one that the micro F1 leaves out; empty = no micro F1.

    Raises:
      UserError: if the number of names differs from the matrix's, or all counts are 0.
    """
    confusion = np.asarray(confusion).astype(np.int64)
    if confusion.shape != (len(emotions), len(emotions)):
        raise UserError(
            f"confusion matrix {confusion.shape} does not fit {len(emotions)} emotions: give one name per row"
        )
    support, predicted, correct = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    total = int(support.sum())
    if total == 0:
        raise UserError("no utterance has a label, so there is nothing to score: choose a split with labels")
    precision, recall = _ratio(correct, predicted), _ratio(correct, support)
    f1 = _ratio(2 * correct, support + predicted)
    included = np.array([name != majority_emotion for name in emotions])
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    return Scores(
        accuracy=int(correct.sum()) / total,
        weighted_f1=float(np.average(f1, weights=support)),
        macro_f1=float(f1.mean()),
        unweighted_accuracy=float(recall[support > 0].mean()),
        support=total,
        classes={name: ClassScores(*row) for name, row in zip(emotions, zip(*columns, strict=True), strict=True)},
        confusion=tuple(map(tuple, confusion.tolist())),
        majority_emotion=majority_emotion,
        micro_f1_without_majority=_micro_f1(confusion, included) if majority_emotion else None,
    )


def classification_report(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, emotions: Sequence[str], majority_emotion: str = ""
) -> Scores:
    """Returns the scores of predictions against labels.

    Args:
      labels: int, any shape, gold emotion indices; -1 = unlabelled, not scored.
      predictions: int, the same shape, predicted emotion indices.
      emotions: names of the emotions, which the indices refer to.
      majority_emotion: the one that the micro F1 leaves out; empty = no micro F1.

    Raises:
      UserError: if the shapes differ, an index is out of range, or no utterance is labelled.

    >>> scores = classification_report([0, 0, 1, -1], [0, 1, 1, 0], ("neutral", "joy"))
    >>> round(scores.weighted_f1, 3), scores["support"], scores.classes["neutral"].recall
    (0.667, 3, 0.5)
    """
    return scores_from_confusion(confusion_matrix(labels, predictions, len(emotions)), emotions, majority_emotion)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation (denominator n - 1) of a score over seeds.

    The deviation of a single value is NaN.

    Raises:
      UserError: if there are no values.
    """
    array = np.asarray(values, np.float64)
    if not array.size:
        raise UserError("no values to average: give the score of at least one seed")
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else float("nan")


def _micro_f1(confusion: np.ndarray, included: np.ndarray) -> float:
    """Returns the F1 of the summed counts of the included emotions; 0 if they neither occur nor are predicted."""
    counted = int(confusion[included].sum() + confusion[:, included].sum())
    return 2 * int(confusion.diagonal()[included].sum()) / counted if counted else 0.0


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the quotient, float64 `[C]`; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
