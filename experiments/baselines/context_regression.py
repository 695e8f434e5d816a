"""Multinomial logistic regression on the features of an utterance and its neighbours.

Features are standardised on the training split and concatenated with those of the neighbours (zeros beyond the ends of
the conversation); frames are averaged over each utterance first. The inverse L2 strength C is selected on the training
split alone, by weighted F1 in cross-validation over whole conversations. Nothing is random.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GroupKFold

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation, Corpus
from jmer.data.frames import mean_pooled
from jmer.data.normalization import apply, fit
from jmer.errors import UserError

MAX_ITERATIONS = 2000
FOLDS = 3
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)


class Scores(NamedTuple):
    """Scores of one regression on the validation split, fractions, and the C that was selected."""

    strength: float
    accuracy: float
    weighted_f1: float
    macro_f1: float


def regress(
    corpus: Corpus, modalities: Sequence[str], context: int, *, strengths: Sequence[float] = STRENGTHS
) -> Scores:
    """Fits a logistic regression on the training split and scores it on the validation split.

    Args:
      corpus: with a validation split.
      modalities: whose features are concatenated.
      context: number of neighbours on either side.
      strengths: candidates for C in ascending order (scikit-learn's C: the higher, the weaker the penalty).

    Raises:
      UserError: if the corpus lacks a modality or a split.
    """
    unknown = [m for m in modalities if m not in corpus.card.widths]
    if unknown:
        raise UserError(f"corpus '{corpus.card.name}' has no {unknown[0]}, only {', '.join(corpus.card.modalities)}")
    training, validation = corpus.conversations("train"), corpus.conversations("validation")
    if corpus.card.frames:
        training, validation = mean_pooled(training), mean_pooled(validation)
    statistics = fit(training, {m: corpus.card.widths[m] for m in modalities})
    inputs, labels, groups = _table(apply(training, statistics), modalities, context)
    strength = _choose(inputs, labels, groups, strengths) if len(strengths) > 1 else strengths[0]
    model = _fitted(inputs, labels, strength)
    inputs, labels, _ = _table(apply(validation, statistics), modalities, context)
    predictions = model.predict(inputs)
    return Scores(
        strength=strength,
        accuracy=float(accuracy_score(labels, predictions)),
        weighted_f1=_f1(labels, predictions, "weighted"),
        macro_f1=_f1(labels, predictions, "macro"),
    )


def with_context(features: np.ndarray, context: int) -> np.ndarray:
    """Concatenates the features of each utterance and its neighbours.

    Args:
      features: `[n, D]`, one conversation.
      context: number of neighbours on either side.

    Returns:
      `[n, (2 context + 1) D]`, from the earliest neighbour to the latest; zeros beyond the ends.
    """
    padded = np.pad(features, ((context, context), (0, 0)))
    return np.concatenate([padded[i : i + len(features)] for i in range(2 * context + 1)], axis=1)


def _table(
    conversations: Sequence[Conversation], modalities: Sequence[str], context: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs `[N, D]`, labels `[N]` and conversation numbers `[N]` of the labelled utterances."""
    inputs = np.concatenate(
        [with_context(np.concatenate([c.features[m] for m in modalities], axis=1), context) for c in conversations]
    )
    labels = np.concatenate([c.labels for c in conversations])
    groups = np.repeat(np.arange(len(conversations)), [len(c) for c in conversations])
    labelled = labels != UNLABELLED
    return inputs[labelled], labels[labelled], groups[labelled]


def _choose(inputs: np.ndarray, labels: np.ndarray, groups: np.ndarray, strengths: Sequence[float]) -> float:
    """Weakens the penalty as long as the mean W-F1 on held-out conversations rises; weak penalties take long to fit."""
    folds = list(GroupKFold(FOLDS).split(inputs, labels, groups))
    best, chosen = -1.0, strengths[0]
    for strength in strengths:
        scores = [
            _f1(labels[out], _fitted(inputs[kept], labels[kept], strength).predict(inputs[out]), "weighted")
            for kept, out in folds
        ]
        if np.mean(scores) <= best:
            break
        best, chosen = float(np.mean(scores)), strength
    return chosen


def _fitted(inputs: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(inputs, labels)


def _f1(labels: np.ndarray, predictions: np.ndarray, average: str) -> float:
    return float(f1_score(labels, predictions, average=average, zero_division=0))
