"""Scores of predictions that were written as tables, of one model or of several as an ensemble."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from jmer.evaluation.attribute_scores import AttributeScores, attribute_scores
from jmer.evaluation.metrics import Scores, classification_report
from jmer.evaluation.predictions import attribute_columns, labels_and_probabilities, mean_probabilities


def scores_of_tables(
    tables: Sequence[pd.DataFrame], emotions: Sequence[str], majority_emotion: str = "", margin: float = 0.0
) -> Scores:
    """Returns the scores of the mean of several models' predictions.

    Args:
      tables: of each model, at least one, the same utterances; see `jmer.evaluation.predictions.prediction_table`.
      emotions: names of the emotions.
      majority_emotion: what the micro F1 leaves out; empty = no micro F1.
      margin: of attributes, see `jmer.evaluation.attribute_scores.AttributeScores`.

    Raises:
      UserError: if a table lacks a column, or a value is no emotion or no finite number.
    """
    labels, probabilities = zip(*(labels_and_probabilities(table, emotions) for table in tables), strict=True)
    (mean,) = mean_probabilities([[values] for values in probabilities])
    scores = classification_report(labels[0], mean.argmax(-1), emotions, majority_emotion)
    return dataclasses.replace(scores, attributes=_attribute_scores(tables, margin))


def _attribute_scores(tables: Sequence[pd.DataFrame], margin: float) -> dict[str, AttributeScores]:
    found = {}
    for name, (gold, predicted) in attribute_columns(tables[0]).items():
        mean = np.mean([table[predicted].to_numpy(float) for table in tables], axis=0)
        scores = attribute_scores(tables[0][gold].to_numpy(float), mean, margin)
        if scores:
            found[name] = scores
    return found
