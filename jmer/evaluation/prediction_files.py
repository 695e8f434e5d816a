"""What is written of predictions: a table, lines of JSON, a page and subtitles, in a folder that is whole or absent.

    predictions.csv      a row per utterance, see `jmer.evaluation.predictions.prediction_table`; then `start` and `end`
                         in seconds if any utterance has them, and `transcript`, on one line, if any has one
    predictions.jsonl    an object per utterance, with the names of its numbers in objects of their own
    predictions.html     a page to look at
    subtitles/NAME.srt   of each recording: its utterances, coloured by emotion, see `jmer.evaluation.subtitles`
    subtitles/NAME.vtt   the same for browsers

Rows and objects are in the order of the conversations; `conversation` and `utterance` together tell them apart.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jmer.batch import UNLABELLED
from jmer.data.attributes import values_of
from jmer.data.corpus import Card, Conversation
from jmer.errors import UserError
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.evaluation.prediction_page import prediction_page
from jmer.evaluation.predictions import check_finite, prediction_table
from jmer.evaluation.subtitles import Span, Utterance, captions, subrip, webvtt
from jmer.files import atomically, check_new_folder, file_names

CSV_FILE = "predictions.csv"
JSON_LINES_FILE = "predictions.jsonl"
PAGE_FILE = "predictions.html"
SUBTITLE_FOLDER = "subtitles"

# Python's `str.splitlines` takes these for line breaks, and they are none in JSON.
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


def write_prediction_files(
    folder: str | Path, predicted: PredictedSplit, card: Card, facts: Mapping[str, str] | None = None
) -> list[Path]:
    """Writes a folder of predictions; if anything goes wrong, there is none.

    Args:
      folder: new or empty.
      predicted: `k` conversations, whole, their predictions, and perhaps their times.
      card: the card of the conversations' corpus.
      facts: name -> value of what is to be known of the run that predicts, for the page; None = nothing.

    Returns:
      The files.

    Raises:
      UserError: if the folder is not empty or cannot be written, or the predictions are not finite or do not fit.
    """
    folder = Path(folder)
    check_new_folder(folder, "for the predictions")
    texts = {
        CSV_FILE: full_table(predicted, card).to_csv(index=False, lineterminator="\n"),
        JSON_LINES_FILE: json_lines(predicted, card),
        PAGE_FILE: prediction_page(predicted, card, facts or {}),
    }
    texts |= {f"{SUBTITLE_FOLDER}/{name}": text for name, text in subtitle_files(predicted, card.emotions).items()}
    with atomically(folder) as temporary:
        for name, text in texts.items():
            path = temporary / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]


def full_table(predicted: PredictedSplit, card: Card) -> pd.DataFrame:
    """Returns the table of `predictions.csv`.

    Raises:
      UserError: if anything does not have the shape that the conversations say, or a probability is not finite.
    """
    conversations, found = predicted.conversations, predicted.predictions
    table = prediction_table(
        conversations, card, found.probabilities, found.weights, found.attention, found.spread, found.attributes
    )
    spans = [span for spans in _checked_times(predicted) for span in spans]
    if any(spans):
        table["start"] = [np.nan if span is None else span.start for span in spans]
        table["end"] = [np.nan if span is None or span.end is None else span.end for span in spans]
    sentences = [sentence for conversation in conversations for sentence in conversation.sentences]
    if any(sentences):
        # A lone carriage return would shift the rows of a csv file.
        table["transcript"] = [" ".join(sentence.split()) for sentence in sentences]
    return table


def json_lines(predicted: PredictedSplit, card: Card) -> str:
    """Returns a line of JSON for each utterance, null where something is unknown.

    Fields: `conversation`, `utterance`, `speaker`, `transcript`, `start`, `end` (seconds), `gold`, `predicted`,
    `probability` (of the predicted emotion), `probabilities` (by emotion), `weights` (by modality, null where it is
    missing), `attention` (by token), and of an ensemble `agreement` and `deviations` (by emotion), of a model that
    learned attributes `attributes` (by attribute, each with `gold` and `predicted`).
    """
    lines = [json.dumps(fields, ensure_ascii=False, allow_nan=False) for fields in _objects(predicted, card.emotions)]
    return "".join(f"{line.translate(_ESCAPED)}\n" for line in lines)


def subtitle_files(predicted: PredictedSplit, emotions: Sequence[str]) -> dict[str, str]:
    """Returns name -> text of a SubRip and a WebVTT file for each recording; none without times."""
    recordings: dict[tuple[str, str], list[Utterance]] = {}
    for conversation, probabilities, spans in zip(
        predicted.conversations, predicted.predictions.probabilities, predicted.times or [], strict=False
    ):
        for i, span in enumerate(spans):
            if span is None:
                continue
            # A recording may hold several conversations, and one conversation may be in several recordings.
            key = (span.recording, "") if span.recording else ("", conversation.id)
            emotion = int(probabilities[i].argmax())
            said = conversation.speakers[i], conversation.sentences[i]
            recordings.setdefault(key, []).append(Utterance(span, *said, emotion, float(probabilities[i][emotion])))
    names = file_names([Path(recording).stem if recording else id for recording, id in recordings])
    files = {}
    for name, utterances in zip(names, recordings.values(), strict=True):
        shown = captions(utterances)
        files[f"{name}.srt"], files[f"{name}.vtt"] = subrip(shown, emotions), webvtt(shown, emotions)
    return files


def _objects(predicted: PredictedSplit, emotions: Sequence[str]) -> Iterator[dict[str, Any]]:
    check_finite(predicted.conversations, predicted.predictions.probabilities)
    for i, conversation in enumerate(predicted.conversations):
        for j in range(len(conversation)):
            yield _object(predicted, emotions, i, j)


def _object(predicted: PredictedSplit, emotions: Sequence[str], i: int, j: int) -> dict[str, Any]:
    """Returns the fields of utterance `j` of conversation `i`."""
    conversation, found = predicted.conversations[i], predicted.predictions
    span = predicted.times[i][j] if predicted.times else None
    probabilities, label = found.probabilities[i][j], conversation.labels[j]
    guess = int(probabilities.argmax())
    fields = {
        "conversation": conversation.id,
        "utterance": conversation.utterances[j],
        "speaker": conversation.speakers[j],
        "transcript": conversation.sentences[j] or None,
        "start": span and span.start,
        "end": span and span.end,
        "gold": None if label == UNLABELLED else emotions[label],
        "predicted": emotions[guess],
        "probability": _number(probabilities[guess]),
        "probabilities": _named(emotions, probabilities),
        "weights": {
            modality: _number(values[i][j]) if _has(conversation, modality, j) else None
            for modality, values in found.weights.items()
        },
        "attention": {token: _number(values[i][j]) for token, values in found.attention.items()},
    }
    if found.spread:
        fields["agreement"] = _number(found.spread.agreement[i][j])
        fields["deviations"] = _named(emotions, found.spread.deviations[i][j])
    if found.attributes:
        fields["attributes"] = {
            name: {"gold": _known(values_of(conversation, name)[j]), "predicted": _number(values[i][j])}
            for name, values in found.attributes.items()
        }
    return fields


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else _number(value)


def _has(conversation: Conversation, modality: str, j: int) -> bool:
    return modality in conversation.available and bool(conversation.available[modality][j])


def _named(emotions: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {emotion: _number(value) for emotion, value in zip(emotions, values, strict=True)}


def _number(value: np.floating) -> float:
    """Returns the shortest float that is the same in float32: 0.7 rather than 0.699999988079071."""
    return float(str(value))


def _checked_times(predicted: PredictedSplit) -> Sequence[Sequence[Span | None]]:
    """Returns the times; there is none where no recording is known."""
    times = predicted.times
    if times is None:
        return []
    if [len(spans) for spans in times] != [len(conversation) for conversation in predicted.conversations]:
        raise UserError("the times do not fit the conversations: give one per utterance, None where it is unknown")
    return times
