"""Transcripts with times: subtitles, TextGrid, the JSON of a speech recogniser; and who speaks, from a diarisation."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jmer.errors import UserError
from jmer.extract.extras import require
from jmer.extract.manifest import parse_time
from jmer.warning import warn

EXTRA = "subtitles"

_NAMED = re.compile(r"([^\s:][^:\n]{0,39}): +(\S.*)", re.DOTALL)
_DASHED = re.compile(r"^[-–—] ?\S.*\n[-–—] ?\S", re.MULTILINE)
_TAG = re.compile(r"<[^<>\n]*>|\{\\[^{}\n]*\}")


class Caption(NamedTuple):
    """What is said from one time to another.

    Attributes:
      start, end: in seconds.
      text: without markup and line breaks.
      speaker: "" where unknown.
    """

    start: float
    end: float
    text: str
    speaker: str = ""


class SpeakerTurn(NamedTuple):
    """From when to when somebody speaks, in seconds."""

    start: float
    end: float
    speaker: str


def read_captions(path: Path) -> list[Caption]:
    """Reads what is said when, in order of the starts.

    A speaker is the voice of a vtt cue, the tier of a TextGrid, the field `speaker` of JSON, or a name before a colon,
    as in "Ann: Hi". Captions without text are left out.

    Args:
      path: a .srt, .vtt, .TextGrid or .json file; JSON has a list of segments with `start`, `end` and `text`, alone or
        under `segments`, as speech recognisers write it.

    Raises:
      UserError: if the file cannot be read or has no captions.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: expected a transcript that ends in {', '.join(_READERS)}")
    found = [_with_speaker(caption) for caption in reader(path, _text(path)) if caption.text.strip()]
    if not found:
        raise UserError(f"{path} has no captions: expected at least one with a start, an end and a text")
    for caption in found:
        if not 0 <= caption.start < caption.end:
            raise UserError(
                f"{path}: '{caption.text[:40]}' starts at {caption.start:g} s and ends at {caption.end:g} s"
            )
    return sorted(found)


def read_speaker_turns(path: Path) -> list[SpeakerTurn]:
    """Reads a diarisation.

    Args:
      path: a .rttm file, or a .json file with a list of `start`, `end` and `speaker`, alone or under `segments`.

    Raises:
      UserError: if the file cannot be read or has no turns.
    """
    text = _text(path)
    if path.suffix.lower() == ".json":
        turns = [
            SpeakerTurn(*(_field(path, one, name) for name in SpeakerTurn._fields)) for one in _segments(path, text)
        ]
    else:
        turns = list(_rttm(path, text))
    if not turns:
        raise UserError(f"{path} has no speakers: expected an RTTM file, or JSON with start, end and speaker")
    return turns


def assign_speakers(captions: Sequence[Caption], turns: Sequence[SpeakerTurn]) -> list[Caption]:
    """Gives each caption the speaker who speaks longest during it; one without any keeps what it has."""

    def speaker(caption: Caption) -> str:
        seconds: dict[str, float] = {}
        for turn in turns:
            overlap = min(caption.end, turn.end) - max(caption.start, turn.start)
            if overlap > 0:
                seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + overlap
        return max(seconds, key=seconds.__getitem__) if seconds else caption.speaker

    return [caption._replace(speaker=speaker(caption)) for caption in captions]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 (byte {error.start}): save it as UTF-8") from error


def _with_speaker(caption: Caption) -> Caption:
    """Finds the name before a colon, and removes markup and line breaks."""
    plain = _TAG.sub("", caption.text).strip()
    named = None if caption.speaker else _NAMED.fullmatch(plain)
    if _DASHED.search(plain):
        warn(f"two speakers share the caption at {caption.start:g} s: '{' '.join(plain.split())}': divide it")
    text, speaker = (named[2], named[1]) if named else (plain, caption.speaker)
    return caption._replace(text=" ".join(text.split()), speaker=speaker)


def _srt(path: Path, text: str) -> Iterator[Caption]:
    srt = require("srt", EXTRA, "srt files")
    try:
        for cue in srt.parse(text):
            yield Caption(cue.start.total_seconds(), cue.end.total_seconds(), cue.content)
    except (srt.SRTParseError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is no srt file: {_reason(error)}") from error


def _vtt(path: Path, text: str) -> Iterator[Caption]:
    webvtt = require("webvtt", EXTRA, "vtt files")
    try:
        for cue in webvtt.from_string(text):
            yield Caption(parse_time(cue.start), parse_time(cue.end), cue.text, cue.voice or "")
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError, ValueError) as error:
        raise UserError(f"{path} is no vtt file: {_reason(error)}") from error


def _textgrid(path: Path, text: str) -> Iterator[Caption]:
    textgrid = require("praatio.textgrid", EXTRA, "TextGrid files")
    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="silence")
        tiers = [grid.getTier(name) for name in grid.tierNames]
    except Exception as error:  # praatio declares none of what it raises for a file that is not one
        raise UserError(f"{path} is no TextGrid: {_reason(error)}") from error
    for tier in tiers:
        for entry in tier.entries:
            if hasattr(entry, "end"):  # points have no duration
                yield Caption(float(entry.start), float(entry.end), entry.label, tier.name)


def _json(path: Path, text: str) -> Iterator[Caption]:
    for one in _segments(path, text):
        speaker = one.get("speaker")
        start, end, said = (_field(path, one, name) for name in ("start", "end", "text"))
        yield Caption(start, end, said, speaker if isinstance(speaker, str) else "")


def _rttm(path: Path, text: str) -> Iterator[SpeakerTurn]:
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start, duration, speaker = float(fields[3]), float(fields[4]), fields[7]
        except (IndexError, ValueError) as error:
            raise UserError(f"{path}, line {number}: expected SPEAKER with its start, duration and name") from error
        yield SpeakerTurn(start, start + duration, speaker)


def _segments(path: Path, text: str) -> Sequence[Mapping[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    segments = found.get("segments") if isinstance(found, dict) else found
    if not isinstance(segments, list) or not all(isinstance(one, dict) for one in segments):
        raise UserError(f"{path}: expected a list of segments, alone or under 'segments'")
    return segments


def _field(path: Path, segment: Mapping[str, Any], name: str) -> Any:
    value = segment.get(name)
    expected: tuple[type, ...] = (str,) if name in ("text", "speaker") else (int, float)
    if isinstance(value, bool) or not isinstance(value, expected):
        kind = "text" if str in expected else "a number of seconds"
        raise UserError(f"{path}: a segment has {name} {value!r}: expected {kind}")
    return value


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


_READERS: dict[str, Callable[[Path, str], Iterator[Caption]]] = {
    ".srt": _srt,
    ".vtt": _vtt,
    ".textgrid": _textgrid,
    ".json": _json,
}
SUFFIXES = tuple(_READERS)
