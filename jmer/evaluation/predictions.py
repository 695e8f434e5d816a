"""Predictions per utterance: tables, files and the mean over the members of an ensemble."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jmer.batch import UNLABELLED
from jmer.data.attributes import values_of
from jmer.data.corpus import Card, Conversation
from jmer.errors import UserError
from jmer.evaluation.spread import Spread
from jmer.files import atomically
from jmer.guard import guarded
from jmer.modalities import MODALITIES

FORMATS = (".csv", ".parquet")
NAMES = ("corpus", "conversation", "utterance", "speaker", "gold", "predicted", "transcript")
"""Columns of text."""
MAY_BE_EMPTY = ("start", "end", *(f"weight_{modality}" for modality in MODALITIES))
"""Columns of numbers that some utterances do not have."""
OF_ATTRIBUTES = "gold_"
"""Beginning of others, the labels of attributes."""


def corpus_title(card: Card) -> str:
    """Returns the name of a corpus, marked "synthetic" if the corpus is."""
    return f"{card.name} (synthetic)" if card.synthetic and "synthetic" not in card.name.lower() else card.name


def prediction_table(
    conversations: Sequence[Conversation],
    card: Card,
    probabilities: Sequence[np.ndarray],
    weights: Mapping[str, Sequence[np.ndarray]],
    attention: Mapping[str, Sequence[np.ndarray]] | None = None,
    spread: Spread | None = None,
    attributes: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> pd.DataFrame:
    """Returns a table of predictions with one row per utterance.

    Args:
      conversations: `k` conversations of `n_i` utterances.
      card: the card of their corpus.
      probabilities: `k` arrays `[n_i, C]`; the emotion with the largest probability is the prediction.
      weights: modality -> `k` arrays `[n_i]`, fusion weights; empty for a model without them.
      attention: token -> `k` arrays `[n_i]`, attention weights from the token to each utterance; None = none.
      spread: of an ensemble's members; None = a single model predicts.
      attributes: attribute -> `k` arrays `[n_i]`, what is predicted of it; None = none.

    Returns:
      Columns `corpus`, `conversation`, `utterance`, `speaker`, `gold` ("" where unlabelled), `predicted`, one
      `probability_<emotion>` per emotion, one `weight_<modality>` per modality in `weights` (NaN where the modality is
      missing), one `attention_<token>` per token in `attention`, and of an ensemble `agreement` (the share of members
      that predict the same) and one `sd_<emotion>` per emotion (the standard deviation of the members' probabilities),
      see `jmer.evaluation.spread.Spread`; then for each attribute in `attributes` `gold_<attribute>` (NaN where
      unlabelled) and `predicted_<attribute>`, on its scale.

    Raises:
      UserError: if a shape does not match the conversations, or a probability is not finite.
    """
    emotions = np.array(card.emotions, dtype=object)
    flat = _per_utterance(conversations, "probabilities", probabilities, (len(emotions),))
    labels = np.concatenate([c.labels for c in conversations])
    names = np.repeat(np.array([c.id for c in conversations], object), [len(c) for c in conversations])
    check_finite(conversations, probabilities)
    columns = {
        "corpus": corpus_title(card),
        "conversation": names,
        "utterance": [name for c in conversations for name in c.utterances],
        "speaker": [name for c in conversations for name in c.speakers],
        "gold": np.where(labels == UNLABELLED, "", emotions[labels]),
        "predicted": emotions[flat.argmax(1)],
    }
    columns |= {f"probability_{emotion}": flat[:, i] for i, emotion in enumerate(card.emotions)}
    for modality, values in weights.items():
        available = np.concatenate([c.available.get(modality, np.zeros(len(c), bool)) for c in conversations])
        weight = np.where(available, _per_utterance(conversations, f"{modality} weights", values, ()), np.nan)
        columns[f"weight_{modality}"] = weight
    for token, values in (attention or {}).items():
        columns[f"attention_{token}"] = _per_utterance(conversations, f"{token} attention", values, ())
    if spread:
        columns["agreement"] = _per_utterance(conversations, "agreement", spread.agreement, ())
        deviations = _per_utterance(conversations, "deviations", spread.deviations, (len(emotions),))
        columns |= {f"sd_{emotion}": deviations[:, i] for i, emotion in enumerate(card.emotions)}
    for attribute, values in (attributes or {}).items():
        columns[f"gold_{attribute}"] = np.concatenate([values_of(c, attribute) for c in conversations])
        columns[f"predicted_{attribute}"] = _per_utterance(conversations, attribute, values, ())
    return pd.DataFrame(columns)


def check_finite(conversations: Sequence[Conversation], probabilities: Sequence[np.ndarray]) -> None:
    """Raises UserError, naming the conversation, if a probability is not finite."""
    for conversation, values in zip(conversations, probabilities, strict=True):
        if not np.isfinite(values).all():
            raise UserError(
                f"conversation '{conversation.id}': probabilities are not finite: use an earlier checkpoint"
            )


def mean_probabilities(members: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    r"""Returns the probabilities of an ensemble, the mean over its $S$ members.

    .. math:: \bar p_{ij} = \frac{1}{S} \sum_{s=1}^{S} p^{(s)}_{ij}

    Args:
      members: for each member, `k` arrays `[n_i, C]`, one per conversation.

    Returns:
      `k` arrays `[n_i, C]` of the members' dtype, summed in float64.

    Raises:
      UserError: if there is no member, or members differ in the number of conversations or in an array's shape.

    >>> mean_probabilities([[np.array([[0.6, 0.4]])], [np.array([[0.2, 0.8]])]])
    [array([[0.4, 0.6]])]
    """
    if not members:
        raise UserError("an ensemble needs at least one member: give the probabilities of one or more")
    shapes = [[np.shape(array) for array in member] for member in members]
    for i, found in enumerate(shapes):
        if len(found) != len(shapes[0]):
            raise UserError(
                f"member {i} of the ensemble has probabilities of {len(found)} conversations, member 0 of "
                f"{len(shapes[0])}: predict the same conversations with each"
            )
        for j, (shape, expected) in enumerate(zip(found, shapes[0], strict=True)):
            if shape != expected or len(shape) != 2:
                raise UserError(
                    f"conversation {j}: member {i} of the ensemble has probabilities {shape}, member 0 {expected}: "
                    "give [utterances, emotions], the same for each"
                )
    return [np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype) for arrays in zip(*members, strict=True)]


def write_predictions(table: pd.DataFrame, path: str | Path) -> None:
    """Writes a table atomically as CSV (UTF-8) or Parquet, depending on the suffix of `path`.

    Names are written as they are, so that they can be joined with their sources. A spreadsheet takes a csv file's names
    that begin with =, +, - or @ for formulas: import such columns as text, or write Parquet.

    Raises:
      UserError: for any other suffix, or if the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UserError(f"cannot write predictions to {path}: give a file name that ends in {' or '.join(FORMATS)}")
    with atomically(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Reads what `write_predictions` wrote as csv; names such as "NA" and "007" stay names.

    Raises:
      UserError: if the file is missing or damaged.
    """
    if not Path(path).exists():
        raise UserError(f"{path} is missing: evaluate the run again")
    with guarded(str(path), "evaluate the run again"):
        columns = pd.read_csv(path, nrows=0).columns
        missing = {column: [""] for column in columns if column in MAY_BE_EMPTY or column.startswith(OF_ATTRIBUTES)}
        return pd.read_csv(path, keep_default_na=False, na_values=missing, dtype=dict.fromkeys(NAMES, str))


def labels_and_probabilities(table: pd.DataFrame, emotions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels, int `[N]` with -1 where there is none, and the probabilities, float `[N, C]`, of predictions.

    Args:
      table: see `prediction_table`.
      emotions: names of the `C` emotions.

    Raises:
      UserError: if the table lacks a column, or a value is no emotion or no finite number.
    """
    index, columns = {"": UNLABELLED}, [f"probability_{emotion}" for emotion in emotions]
    index |= {emotion: i for i, emotion in enumerate(emotions)}
    with guarded("a table of predictions", "evaluate the run again", described="is damaged"):
        labels = np.array([index[gold] for gold in table["gold"]])
        probabilities = table[columns].to_numpy(float)
        if not np.isfinite(probabilities).all():
            raise ValueError("a probability is not finite")
    return labels, probabilities


def attribute_columns(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Returns attribute -> the columns of predictions with its labels and with what is predicted of it."""
    names = [column.removeprefix(OF_ATTRIBUTES) for column in table.columns if column.startswith(OF_ATTRIBUTES)]
    return {name: (f"{OF_ATTRIBUTES}{name}", f"predicted_{name}") for name in names}


def _per_utterance(
    conversations: Sequence[Conversation], what: str, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Returns the arrays of all conversations as one, `[sum n_i, *shape]`.

    Args:
      conversations: `k` conversations of `n_i` utterances.
      what: name of the values, for messages.
      values: `k` arrays `[n_i, *shape]`.
      shape: shape of the values of one utterance.

    Raises:
      UserError: if the number of arrays or a shape is wrong.
    """
    if len(values) != len(conversations):
        raise UserError(
            f"{what} for {len(values)} conversations, but there are {len(conversations)}: give one array each"
        )
    for conversation, array in zip(conversations, values, strict=True):
        expected = (len(conversation), *shape)
        if np.shape(array) != expected:
            raise UserError(
                f"conversation '{conversation.id}': {what} must have shape {expected}, not {np.shape(array)}"
            )
    return np.concatenate(values)
