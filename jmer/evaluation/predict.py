"""Running a trained model over a corpus."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
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
    asked = attention and "attention" in inspect.signature(model.module.__call__).parameters

    def run(variables, batch):
        output = model.module.apply(variables, batch, train=False, **({"attention": True} if asked else {}))
        given = _attention(output, batch.mask) if asked else {}
        return jax.nn.softmax(output.logits), dict(getattr(output, "weights", {})), given

    return run


def _attention(output: Any, mask: jax.Array) -> dict[str, jax.Array]:
    """Returns what the atmosphere's token reads `[B, T]`; a causal model's last one, which has read everything."""
    if output.atmosphere is None:
        return {}
    weights = output.attention["atmosphere"].mean(1)
    last = jnp.clip(mask.sum(1), 1, weights.shape[1]) - 1
    return {"atmosphere": jnp.take_along_axis(weights, last[:, None, None], axis=1)[:, 0, 1:]}


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
    found: dict[int, tuple] = {}
    for index, output in outputs:
        for row, position in enumerate(index):
            if position >= 0:
                own = row, slice(len(conversations[position]))
                found[position] = jax.tree.map(lambda x, own=own: x[own], output)
    rows = [found[i] for i in range(len(conversations))]
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
        found = predict_conversations(run, variables, inputs, widths, batch_size=batch_size)
        table = prediction_table(conversations, corpus.card, found.probabilities, found.weights, found.attention)
        table.insert(0, "split", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
