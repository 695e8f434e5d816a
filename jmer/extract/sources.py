"""What can be predicted without a corpus: manifests, recordings with subtitles, and dialogues as JSON."""

import argparse
import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jmer.errors import UserError
from jmer.extract.manifest import Row, read_manifest, rows_of_objects
from jmer.extract.subtitles import SUFFIXES, assign_speakers, read_captions, read_speaker_turns

MANIFESTS = (".csv", ".tsv", ".jsonl", ".ndjson")
DIARIZATION = ".rttm"
DIALOGUE = "dialogue"
"""Name of a conversation that has none."""


def rows_of(source: Path, options: argparse.Namespace | None = None) -> list[Row]:
    """Returns the utterances of a manifest, of a transcript, or of a recording with its transcript.

    Args:
      source: a manifest (.csv, .jsonl); or subtitles; or a dialogue (.json, see `rows_of_json`); or a recording, whose
        subtitles lie beside it with the same name, and perhaps a .rttm file that says who speaks when.
      options: parsed flags of `jmer.extract.arguments.add_source_arguments`, which name these files if they lie
        elsewhere; None = they do not.

    Raises:
      UserError: if a file is missing or invalid.
    """
    if not source.exists():
        raise UserError(f"no file {source}: give a manifest, a recording, subtitles, or a corpus")
    if source.is_dir():
        raise UserError(f"{source} is a folder, and no corpus: give a manifest, a recording or subtitles")
    suffix = source.suffix.lower()
    if suffix in MANIFESTS:
        return read_manifest(source, options.encoding if options else "utf-8-sig")
    if suffix == ".json" and (dialogue := _dialogue(source)):
        return rows_of_utterances(dialogue)
    speakers = (options and options.speakers) or _beside(source, (DIARIZATION,))
    if suffix in SUFFIXES:
        return rows_of_captions(source.stem, None, source, speakers)
    subtitles = (options and options.subtitles) or _beside(source, SUFFIXES)
    if subtitles is None:
        listed = ", ".join(source.with_suffix(suffix).name for suffix in SUFFIXES)
        raise UserError(
            f"{source}: what is said when is needed: give --subtitles FILE, or put {listed} beside it; a manifest that "
            "divides it into utterances works without a transcript"
        )
    return rows_of_captions(source.stem, source, subtitles, speakers)


def rows_of_captions(name: str, recording: Path | None, captions: Path, diarization: Path | None) -> list[Row]:
    """Returns a row per caption.

    Args:
      name: of the conversation.
      recording: that the captions are of; None = only what is said is known.
      captions: their file.
      diarization: who speaks when; None = what the captions say.
    """
    found = read_captions(captions)
    if diarization:
        found = assign_speakers(found, read_speaker_turns(diarization))
    objects = [
        (
            f"{captions.name}, caption {number}",
            {
                "conversation": name,
                "speaker": caption.speaker,
                "transcript": caption.text,
                "start": caption.start,
                "end": caption.end,
                "file": str(recording.resolve()) if recording else None,
            },
        )
        for number, caption in enumerate(found, 1)
    ]
    return rows_of_objects(objects, captions.parent)


def rows_of_json(text: str) -> list[Row]:
    """Returns the utterances of a dialogue that is written as JSON.

    Args:
      text: a list of what `rows_of_utterances` takes; or such utterances, one per line.

    Raises:
      UserError: naming the utterance, if anything is not as expected.
    """
    return rows_of_utterances(_parsed(text))


def rows_of_utterances(utterances: Sequence[Any]) -> list[Row]:
    """Returns the rows of utterances.

    Args:
      utterances: texts, or mappings with the fields of a manifest (`jmer.extract.manifest`), of which only
        `transcript`, which may be called `text`, or `file` is needed. Those without a conversation are one.

    Raises:
      UserError: naming the utterance, if anything is not as expected.
    """
    objects = []
    for number, utterance in enumerate(utterances, 1):
        where = f"utterance {number}"
        fields = {"transcript": utterance} if isinstance(utterance, str) else utterance
        if not isinstance(fields, Mapping):
            raise UserError(f"{where} is {utterance!r}: expected text, or an object with speaker and transcript")
        fields = {"conversation": DIALOGUE, **fields}
        if "text" in fields and "transcript" not in fields:
            fields["transcript"] = fields.pop("text")
        objects.append((where, fields))
    return rows_of_objects(objects, Path())


def _parsed(text: str) -> Sequence[Any]:
    if not text.strip():
        raise UserError('the input is empty: expected a dialogue as JSON: [{"speaker": "Ann", "transcript": "Hi"}]')
    try:
        found = json.loads(text)
        return found if isinstance(found, list) else [found]
    except RecursionError as error:
        raise UserError("the input is no dialogue: it has too many brackets in brackets") from error
    except ValueError:
        pass
    utterances = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                utterances.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise UserError(f"line {number} of the input is no JSON ({error})") from error
    return utterances


def _dialogue(path: Path) -> Sequence[Any]:
    """Returns the utterances of a JSON file that is a dialogue; none if it is what a speech recogniser writes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):  # which the reader of subtitles reports
        return ()
    if not isinstance(found, list) or any(isinstance(one, dict) and {"start", "text"} <= one.keys() for one in found):
        return ()
    return found


def _beside(source: Path, suffixes: Sequence[str]) -> Path | None:
    """Returns the file with the same name and one of the suffixes, in any case."""
    for suffix in suffixes:
        for path in sorted(source.parent.glob(f"{glob.escape(source.stem)}.*")):
            if path.suffix.lower() == suffix and path.stem == source.stem:
                return path
    return None
