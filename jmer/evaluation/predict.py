"""Running a trained model over a corpus."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from jmer.batch import Batch
from jmer.data import normalization
from jmer.data.batching import batches
from jmer.data.corpus import Conversation, Corpus
from jmer.data.normalization import Standardization
from jmer.data.rows import batch_rows
from jmer.evaluation.predictions import prediction_table
from jmer.models.model import Model


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says about `k` conversations of `n_i` utterances, unpadded and in their order.

    Attributes:
      probabilities: `k` arrays float32 `[n_i, C]`.
      weights: modality -> `k` arrays float32 `[n_i]`, fusion weights; empty for a model that has none.
    """

    probabilities: Sequence[np.ndarray]
    weights: Mapping[str, Sequence[np.ndarray]]


def forward(model: Model) -> Callable[[Any, Batch], tuple[jax.Array, Mapping[str, jax.Array]]]:
    """Returns the function `(variables, batch) -> (probabilities [B, T, C], weights {modality: [B, T]})`, unmapped."""

    def run(variables, batch):
        output = model.module.apply(variables, batch, train=False)
        return jax.nn.softmax(output.logits), dict(getattr(output, "weights", {}))

    return run


def predict_conversations(
    run: Callable[[Any, Batch], tuple],
    variables: Any,
    conversations: Sequence[Conversation],
    widths: Mapping[str, int],
    *,
    batch_size: int,
    lengths: Sequence[int] = (),
    multiple: int = 1,
) -> Predictions:
    """Predicts every utterance exactly once.

    Args:
      run: `forward(model)`, jitted or mapped over devices.
      variables: the model's.
      conversations: with features already as the model takes them.
      widths: modality -> width.
      batch_size, lengths, multiple: see `jmer.data.batching.batches`.
    """
    padded = batches(conversations, widths, batch_size=batch_size, lengths=lengths, multiple=multiple)
    return _unpadded([(batch.index, jax.device_get(run(variables, batch))) for batch in padded], conversations)


def predict_together(
    run: Callable[[Any, Batch], tuple],
    variables: Any,
    conversations: Sequence[Conversation],
    widths: Mapping[str, int],
    *,
    count: int,
    **padding,
) -> list[Predictions]:
    """Predicts every utterance with several models at once.

    Args:
      run: `forward(model)`, mapped over the models' variables; its results have a leading axis of models.
      variables: the models', stacked along a leading axis.
      conversations, widths, padding: see `predict_conversations`.
      count: how many models to return predictions of.
    """
    padded = batches(conversations, widths, **padding)
    outputs = [(batch.index, jax.device_get(run(variables, batch))) for batch in padded]
    return [
        _unpadded([(index, jax.tree.map(lambda x, i=i: x[i], output)) for index, output in outputs], conversations)
        for i in range(count)
    ]


def _unpadded(outputs: Sequence[tuple[np.ndarray, tuple]], conversations: Sequence[Conversation]) -> Predictions:
    """Puts the rows of batches, each with the positions of its conversations, in these conversations' order."""
    probabilities: dict[int, np.ndarray] = {}
    weights: dict[int, dict[str, np.ndarray]] = {}
    for index, (batch_probabilities, batch_weights) in outputs:
        for row, position in enumerate(index):
            if position >= 0:
                length = len(conversations[position])
                probabilities[position] = batch_probabilities[row, :length]
                weights[position] = {m: w[row, :length] for m, w in batch_weights.items()}
    order = range(len(conversations))
    names = weights[0] if weights else {}
    return Predictions([probabilities[i] for i in order], {m: [weights[i][m] for i in order] for m in names})


def predict(
    model: Model,
    variables: Any,
    corpus: Corpus,
    *,
    split: str | None = None,
    statistics: Mapping[str, Standardization] | None = None,
    context: str = "mask_unlabelled",
    batch_size: int = 32,
) -> pd.DataFrame:
    """Returns a table of predictions, one row per utterance, labelled or not.

    Args:
      model: the network and its loss.
      variables: what `model.module.apply` takes.
      corpus: has the modalities and widths that the model was made for.
      split: the split to predict; None = all.
      statistics: the normalisation that the model was trained with; None = features as they are.
      context: as the model was trained, see `jmer.data.rows.batch_rows`.
      batch_size: conversations per batch, or utterances where they are sequences of frames.

    Returns:
      The columns of `jmer.evaluation.predictions.prediction_table`, after a first column `split`.

    Raises:
      UserError: if the corpus has no such split.
    """
    run = jax.jit(forward(model))
    widths = corpus.card.widths if statistics is None else {m: len(s.mean) for m, s in statistics.items()}
    tables = []
    for name in [split] if split else corpus.splits:
        conversations = batch_rows(corpus, name, context=context)
        inputs = conversations if statistics is None else normalization.apply(conversations, statistics)
        found = predict_conversations(run, variables, inputs, widths, batch_size=batch_size)
        table = prediction_table(conversations, corpus.card, found.probabilities, found.weights)
        table.insert(0, "split", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
