"""Predictions as tables of text for a terminal."""

from collections.abc import Sequence

import numpy as np

from jmer.data.corpus import Conversation
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.text import printable, storable
from jmer.text_width import fitted, text_width

NARROWEST = 60
"""Columns of a table at least."""
GAP = "  "
# Places in a row.
TRANSCRIPT = 1
NAMES = (0, 2, 4)
"""Speaker, emotion, next emotion."""


def prediction_text(predicted: PredictedSplit, emotions: Sequence[str], width: int, encoding: str = "utf-8") -> str:
    """Returns a table for each conversation: who says what, the predicted emotion and the next likely one.

    Long speakers, transcripts and emotions are cut. An ensemble's tables have the agreement of its members, too.

    Args:
      predicted: conversations and their predictions.
      emotions: names of the emotions.
      width: columns of the terminal; tables have 60 at least.
      encoding: of the terminal, which shows escapes for what it lacks.

    Returns:
      Lines for `jmer.command.show`.
    """
    ellipsis = "…" if _shown("…", encoding) == "…" else "..."
    tables = []
    for i, conversation in enumerate(predicted.conversations):
        spread = predicted.predictions.spread
        agreement = None if spread is None else spread.agreement[i]
        rows = _rows(conversation, predicted.predictions.probabilities[i], emotions, agreement)
        cells = [[_shown(cell, encoding) for cell in row] for row in rows]
        count = f" ({_counted(len(conversation))})"
        columns = max(width, NARROWEST)
        title = fitted(_shown(conversation.id, encoding), columns - len(count), ellipsis).rstrip()
        tables.append("\n".join([title + count, *_table(cells, columns, ellipsis)]))
    return "\n\n".join(tables)


def _rows(
    conversation: Conversation, probabilities: np.ndarray, emotions: Sequence[str], agreement: np.ndarray | None
) -> list[list[str]]:
    """Returns the header and a row per utterance."""
    rows = [["speaker", "transcript", "emotion", "%", "next", "%", *(["agree"] if agreement is not None else [])]]
    for j, values in enumerate(probabilities):
        # Of equal ones the first, as everywhere else.
        best, *others = np.argsort(-values, kind="stable")
        second = [emotions[others[0]], _percent(values[others[0]])] if others else ["", ""]
        rows.append(
            [
                conversation.speakers[j],
                conversation.sentences[j],
                emotions[best],
                _percent(values[best]),
                *second,
                *([f"{_percent(agreement[j])} %"] if agreement is not None else []),
            ]
        )
    return rows


def _table(rows: Sequence[Sequence[str]], width: int, ellipsis: str) -> list[str]:
    """Returns lines: a name gets at most a sixth of the columns, the transcript those that are left."""
    widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    for place in NAMES:
        widths[place] = min(widths[place], width // 6)
    others = sum(widths) - widths[TRANSCRIPT] + len(GAP) * (len(widths) - 1)
    widths[TRANSCRIPT] = min(widths[TRANSCRIPT], width - others)
    lines = []
    for row in rows:
        cells = [
            fitted(cell, columns, ellipsis) if place in (TRANSCRIPT, *NAMES) else cell.rjust(columns)
            for place, (cell, columns) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(GAP.join(cells).rstrip())
    return lines


def _shown(text: str, encoding: str) -> str:
    """Returns a text on one line, as a terminal will show it."""
    line = printable(" ".join(storable(text).split()))
    return line.encode(encoding, "backslashreplace").decode(encoding)


def _percent(fraction: np.floating) -> str:
    return f"{100 * float(fraction):.0f}"


def _counted(utterances: int) -> str:
    return "1 utterance" if utterances == 1 else f"{utterances} utterances"
