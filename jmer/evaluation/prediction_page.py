"""Predictions as one self-contained HTML page, with a viewer of the conversations."""

from collections.abc import Mapping

import numpy as np

from jmer.data.corpus import Card, any_labelled
from jmer.evaluation.html_page import render_page
from jmer.evaluation.html_viewer import PredictedSplit, viewer_data
from jmer.evaluation.predictions import corpus_title

NO_SPLIT = ""
"""Name of what is no split of a corpus."""


def prediction_page(predicted: PredictedSplit, card: Card, facts: Mapping[str, str]) -> str:
    """Returns a page on predictions, with or without gold labels.

    Args:
      predicted: conversations and their predictions.
      card: the card of the conversations' corpus.
      facts: name -> value of what is to be known of the run that predicts.
    """
    guesses = np.concatenate([values.argmax(-1) for values in predicted.predictions.probabilities])
    counts = np.bincount(guesses, minlength=len(card.emotions)).tolist()
    return render_page(
        "predictions.html",
        emotions=card.emotions,
        title=f"Predictions for {corpus_title(card)}",
        utterances=len(guesses),
        conversations=len({conversation.id for conversation in predicted.conversations}),
        counts=list(zip(card.emotions, counts, strict=True)),
        labelled=any_labelled(predicted.conversations),
        spread=predicted.predictions.spread is not None,
        facts=facts,
        viewer=viewer_data(card.emotions, {NO_SPLIT: predicted}),
    )
