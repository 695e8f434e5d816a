"""Model selection: the rules by which a run chooses the epoch that it reports, and the metrics that can choose it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jmer.errors import UserError

MICRO_F1 = "micro_f1_without_majority"
SCORES = {
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
    "unweighted_accuracy": "unweighted accuracy",
}
"""Scores over all emotions, as they are called in `jmer.evaluation.metrics.Scores` and in reports."""
CONCORDANCE = "ccc_"
"""Before the name of an attribute: its concordance correlation coefficient."""
EMOTION_SCORES = {"precision": "precision", "recall": "recall", "f1": "F1"}
"""Scores of one emotion, as they are called in `jmer.evaluation.metrics.ClassScores` and in reports."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """How a run chooses its epoch.

    Attributes:
      name: the value of `config.selection`.
      split: the split whose score chooses the epoch; None = the last epoch, whatever its scores.
      metric: the score that chooses, see `metric_value`.
      majority_emotion: what the micro F1 leaves out; empty = there is no micro F1.
    """

    name: str
    split: str | None
    metric: str = "weighted_f1"
    majority_emotion: str = ""

    @property
    def oracle(self) -> bool:
        """True if the test split chooses the epoch, which makes its scores optimistic."""
        return self.split == "test"

    @property
    def title(self) -> str:
        """The metric as reports call it."""
        return metric_title(self.metric, self.majority_emotion)

    @property
    def description(self) -> str:
        """How the epoch was chosen, for the place after "epoch 7 of 80, " in a report."""
        if self.split is None:
            return "the last epoch, not chosen by a score"
        if self.oracle:
            return f"chosen by TEST {self.title} ({self.name}: optimistic, not comparable)"
        return f"chosen by {self.split} {self.title}"


SELECTIONS: dict[str, str | None] = {"validation": "validation", "last": None, "test_oracle": "test"}
"""Value of `config.selection` -> the split that chooses the epoch."""


def get_selection(name: str, metric: str = "weighted_f1", majority_emotion: str = "") -> Selection:
    """Returns the selection rule of a name.

    Raises:
      UserError: if there is no such rule.
    """
    if name not in SELECTIONS:
        raise UserError(f"unknown selection '{name}': choose one of {', '.join(SELECTIONS)}")
    return Selection(name, SELECTIONS[name], metric, majority_emotion)


def configured_selection(config: Any) -> Selection:
    """Returns the selection rule of a configuration. Raises UserError if there is no such rule."""
    return get_selection(config.selection, config.selection_metric, config.majority_emotion)


def check_metric(config: Any, emotions: Sequence[str], attributes: Sequence[str] = ()) -> None:
    """Checks the fields that name a metric and an emotion.

    Raises:
      UserError: if the corpus has no such emotion, or its report no such metric.
    """
    majority, metric = config.majority_emotion, config.selection_metric
    if majority and majority not in emotions:
        raise UserError(f"majority_emotion is '{majority}': choose one of {', '.join(emotions)}, or leave it empty")
    if metric == MICRO_F1 and not majority:
        raise UserError(
            f"selection_metric={MICRO_F1} needs the emotion that it leaves out: set majority_emotion to one of "
            f"{', '.join(emotions)}"
        )
    overall, of_emotion = (*SCORES, MICRO_F1), [f"{score}_" for score in EMOTION_SCORES]
    of_attributes = [CONCORDANCE + attribute for attribute in attributes]
    if metric not in {*overall, *of_attributes, *(score + emotion for score in of_emotion for emotion in emotions)}:
        raise UserError(
            f"selection_metric is '{metric}': choose one of {', '.join((*overall, *of_attributes))}, or "
            f"{', '.join(of_emotion)} with an emotion ({', '.join(emotions)})"
        )


def metric_value(scores: Mapping[str, Any], name: str) -> float:
    """Returns a metric among the scores of a split, see `jmer.evaluation.metrics.Scores`: `macro_f1`, or `f1_sad`.

    That of an attribute which is labelled nowhere is NaN.
    """
    if name in (*SCORES, MICRO_F1):
        return scores[name]
    score, _, emotion = name.partition("_")
    if is_of_attribute(name):
        found = scores["attributes"].get(emotion)
        return found["concordance"] if found else math.nan
    return scores["classes"][emotion][score]


def is_of_attribute(name: str) -> bool:
    """Returns whether a metric is a score of an attribute rather than of emotions."""
    return name.startswith(CONCORDANCE)


def metric_title(name: str, majority_emotion: str = "") -> str:
    """Returns what reports call a metric: `macro F1`, `micro F1 without neutral`, `F1 of sad`."""
    if name == MICRO_F1:
        return f"micro F1 without {majority_emotion}"
    score, _, emotion = name.partition("_")
    if is_of_attribute(name):
        return f"CCC of {emotion}"
    return SCORES.get(name) or f"{EMOTION_SCORES[score]} of {emotion}"


def summarized_metrics(scores: Mapping[str, Any]) -> dict[str, str]:
    """Returns name -> title of the metrics over all emotions, and of attributes, that the scores of a split have."""
    majority = scores["majority_emotion"]
    of_attributes = [CONCORDANCE + name for name in scores.get("attributes", {})]
    return SCORES | {name: metric_title(name, majority) for name in [MICRO_F1] * bool(majority) + of_attributes}
