"""Running a trained model over a corpus."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from jmer.batch import Batch
from jmer.data import normalization
from jmer.data.batching import batches, places, shape_for
from jmer.data.corpus import Conversation, Corpus
from jmer.data.normalization import Standardization
from jmer.data.rows import batch_rows
from jmer.evaluation.predictions import prediction_table
from jmer.models.spec import Model


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says about `k` conversations of `n_i` utterances, unpadded and in their order.

    Attributes:
      probabilities: `k` arrays float32 `[n_i, C]`.
      weights: modality -> `k` arrays float32 `[n_i]`, fusion weights; empty for a model that has none.
      attention: token -> `k` arrays float32 `[n_i]`, the attention that a token for the whole conversation pays to each
        utterance, mean over heads; empty if not asked for, or for a model without such a token.
    """

    probabilities: Sequence[np.ndarray]
    weights: Mapping[str, Sequence[np.ndarray]]
    attention: Mapping[str, Sequence[np.ndarray]]


def forward(model: Model, *, attention: bool = False) -> Callable[[Any, Batch], tuple]:
    """Returns the function `(variables, batch) -> (probabilities, weights, attention)`, unmapped.

    Probabilities are `[B, T, C]`, weights `{modality: [B, T]}` and attention `{token: [B, T]}`, see `Predictions`.

    Args:
      model: the network and its loss.
      attention: whether to give the attention of a model that has it to give.
    """
    summaries = model.spec.summaries

    def run(variables, batch):
        options = summaries.call_options if attention else {}
        output = model.module.apply(variables, batch, train=False, **options)
        given = dict(summaries.attention(output, batch)) if attention else {}
        return jax.nn.softmax(output.logits), dict(summaries.fusion_weights(output, batch)), given

    return run


def predict_conversations(
    run: Callable[[Any, Batch], tuple],
    variables: Any,
    conversations: Sequence[Conversation],
    widths: Mapping[str, int],
    **shape,
) -> Predictions:
    """Predicts every utterance exactly once.

    Args:
      run: `forward(model)`, jitted or mapped over devices.
      variables: the model's.
      conversations: with features already as the model takes them.
      widths: modality -> width.
      shape: `batch_size`, `lengths`, `packing` and `multiple` of `jmer.data.batching.batches`.
    """
    made = batches(conversations, widths, **shape)
    return _predictions(
        [(batch.conversation_ids, jax.device_get(run(variables, batch))) for batch in made], conversations
    )


def predict_together(
    run: Callable[[Any, Batch], tuple],
    variables: Any,
    conversations: Sequence[Conversation],
    widths: Mapping[str, int],
    *,
    count: int,
    **shape,
) -> list[Predictions]:
    """Predicts every utterance with several models at once.

    Args:
      run: `forward(model)`, mapped over the models' variables; its results have a leading axis of models.
      variables: the models', stacked along a leading axis.
      conversations, widths, shape: see `predict_conversations`.
      count: how many models to return predictions of.
    """
    made = batches(conversations, widths, **shape)
    outputs = [(batch.conversation_ids, jax.device_get(run(variables, batch))) for batch in made]

    def of_model(i: int) -> list[tuple]:
        return [(conversation_ids, jax.tree.map(lambda x: x[i], output)) for conversation_ids, output in outputs]

    return [_predictions(of_model(i), conversations) for i in range(count)]


def by_conversation(outputs: Iterable[tuple[np.ndarray, Any]], conversations: Sequence[Conversation]) -> list[Any]:
    """Takes apart what was computed of batches, and puts it in the conversations' order, without padding.

    Args:
      outputs: of each batch its `conversation_ids`, and a pytree of NumPy arrays `[B, T, ...]`.
      conversations: `k` conversations of `n_i` utterances, which the conversation_ids number.

    Returns:
      `k` pytrees of arrays `[n_i, ...]`.
    """
    found: dict[int, Any] = {}
    for conversation_ids, output in outputs:
        for position, row, _, real in places(conversation_ids, conversations):
            found[position] = jax.tree.map(lambda x, own=(row, real): x[own], output)
    return [found[position] for position in range(len(conversations))]


def _predictions(outputs: Sequence[tuple[np.ndarray, tuple]], conversations: Sequence[Conversation]) -> Predictions:
    rows = by_conversation(outputs, conversations)
    return Predictions([row[0] for row in rows], _by_name([row[1] for row in rows]), _by_name([row[2] for row in rows]))


def _by_name(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


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
    run = jax.jit(forward(model, attention=True))
    widths = corpus.card.widths if statistics is None else {m: len(s.mean) for m, s in statistics.items()}
    tables = []
    for name in [split] if split else corpus.splits:
        conversations = batch_rows(corpus, name, context=context)
        inputs = conversations if statistics is None else normalization.apply(conversations, statistics)
        shape = shape_for(inputs, batch_size=batch_size, several=model.spec.packing)
        found = predict_conversations(run, variables, inputs, widths, batch_size=batch_size, **shape)
        table = prediction_table(conversations, corpus.card, found.probabilities, found.weights, found.attention)
        table.insert(0, "split", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
