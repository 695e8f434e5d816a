r"""Predictions as subtitles, coloured by emotion: SubRip (`.srt`) and WebVTT (`.vtt`).

A caption has the speaker and the transcript on one line, and the predicted emotion with its probability on the next:

    Ann: Did you sleep well?
    joy 62 %

Without a transcript, it is `Ann: joy 62 %`. SubRip has no escapes, so `<`, `>`, `{` and `}` become `‹`, `›`, `(` and
`)` there. Colours are those for a dark ground: players draw subtitles on a picture, with a dark outline or box.
"""

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

from jmer.evaluation.colours import emotion_colours
from jmer.text import storable

LONGEST_UNKNOWN = 10_000
"""Milliseconds that a caption stays at most, if it is not known when the utterance ends."""

_SUBRIP = str.maketrans("<>{}", "‹›()")
_CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Span(NamedTuple):
    """Where an utterance is in a recording.

    Attributes:
      start: in seconds.
      end: in seconds; None = unknown.
      recording: name of the recording; "" = that of the conversation.
    """

    start: float
    end: float | None
    recording: str = ""


class Utterance(NamedTuple):
    """A predicted utterance of a recording; `emotion` is an index."""

    span: Span
    speaker: str
    transcript: str
    emotion: int
    probability: float


class Caption(NamedTuple):
    """An utterance and the time that it is shown, in milliseconds."""

    start: int
    end: int
    utterance: Utterance


def captions(utterances: Sequence[Utterance]) -> list[Caption]:
    """Returns captions in the order of their starts.

    An utterance whose end is unknown is shown until the next one of the recording starts, ten seconds at most.
    """
    ordered = sorted(utterances, key=lambda utterance: utterance.span.start)
    starts = [_milliseconds(utterance.span.start) for utterance in ordered]
    found = []
    for start, utterance in zip(starts, ordered, strict=True):
        if utterance.span.end is None:
            latest = start + LONGEST_UNKNOWN
            end = min((later for later in starts if start < later < latest), default=latest)
        else:
            end = _milliseconds(utterance.span.end)
        found.append(Caption(start, max(end, start + 1), utterance))
    return found


def subrip(shown: Sequence[Caption], emotions: Sequence[str]) -> str:
    """Returns captions as a SubRip file.

    Args:
      shown: in order.
      emotions: names of the emotions.
    """
    colours = emotion_colours(emotions)
    blocks = []
    for number, (start, end, utterance) in enumerate(shown, 1):
        text = "\n".join(_lines(utterance, emotions)).translate(_SUBRIP)
        times = f"{_clock(start, ',')} --> {_clock(end, ',')}"
        blocks.append(f'{number}\n{times}\n<font color="{colours[utterance.emotion].on_dark}">{text}</font>\n')
    return "\n".join(blocks)


def webvtt(shown: Sequence[Caption], emotions: Sequence[str]) -> str:
    """Returns captions as a WebVTT file, with a class of text per emotion and a voice per speaker.

    Args:
      shown: in order.
      emotions: names of the emotions.
    """
    classes = [name if _CLASS_NAME.fullmatch(name) else f"_{i}" for i, name in enumerate(emotions)]
    rules = [
        f"::cue(.{name}) {{ color: {colour.on_dark} }}"
        for name, colour in zip(classes, emotion_colours(emotions), strict=True)
    ]
    blocks = ["WEBVTT\n", "\n".join(["STYLE", *rules, ""])]
    for start, end, utterance in shown:
        text = html.escape("\n".join(_lines(utterance, emotions)), quote=False)
        coloured = f"<c.{classes[utterance.emotion]}>{text}</c>"
        speaker = html.escape(_one_line(utterance.speaker), quote=False)
        voiced = f"<v {speaker}>{coloured}</v>" if speaker else coloured
        blocks.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{voiced}\n")
    return "\n".join(blocks)


def _lines(utterance: Utterance, emotions: Sequence[str]) -> list[str]:
    speaker, transcript = _one_line(utterance.speaker), _one_line(utterance.transcript)
    label = f"{_one_line(emotions[utterance.emotion])} {100 * utterance.probability:.0f} %"
    lines = [transcript, label] if transcript else [label]
    return [f"{speaker}: {lines[0]}", *lines[1:]] if speaker else lines


def _one_line(text: str) -> str:
    """Returns a text without line breaks, which would end the caption, and with single spaces."""
    return " ".join(storable(text).split())


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{rest:03d}"
