"""Corpora of recordings and transcripts, whose features are extracted."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jmer.data.corpus import Corpus
from jmer.errors import UserError
from jmer.extract.cache import Cache
from jmer.extract.corpus import check_same_kind, identities, labels_of_rows, make_corpus_of
from jmer.extract.manifest import SHOWN_DEFECTS, Row
from jmer.extract.protocol import Extractor
from jmer.extract.registry import make_extractor
from jmer.extract.sources import DIALOGUE, rows_of, rows_of_utterances
from jmer.extract.work import Extracted, Log, check_recordings, extract_features
from jmer.files import local_path
from jmer.warning import warn

DEFAULTS = {"text": "hashing", "audio": "acoustic"}
"""Modality -> the extractor that needs no weights."""


def extract_corpus(
    source: str | Path | Sequence[str | Mapping[str, Any]],
    *,
    text: str | None = None,
    audio: str | None = None,
    visual: str | None = None,
    emotions: Sequence[str] | None = None,
    name: str | None = None,
    cache: str | Path | None = None,
    jobs: int = 1,
    log: Log | None = None,
) -> Corpus:
    """Makes a corpus, in memory, of recordings and transcripts.

    Args:
      source: the path of a manifest, or utterances as mappings with its columns, see `jmer.extract.manifest`.
      text, audio, visual: extractors, as `jmer extract` takes them, e.g. `bert:models/minilm,layer=-2`; None = none,
        but those that need no weights if all are None.
      emotions: names of the labels in their order; None = those of the labels, in the usual order.
      name: of the corpus; None = that of the manifest.
      cache: the folder where features are kept; None = nowhere.
      jobs: recordings that are done at once.
      log: prints a line, on progress; None = silent.

    Raises:
      UserError: naming what is wrong in the source, an extractor or a recording.

    Example:
      >>> corpus = extract_corpus([{"conversation": "a", "speaker": "Ann", "transcript": "Did you sleep well?"}])
      >>> corpus.card.widths, corpus.card.extractors["text"]["extractor"]
      ({'text': 1024}, 'hashing')
    """
    if isinstance(source, str | Path):
        rows, stem = rows_of(local_path(source)), Path(source).stem
    else:
        rows, stem = rows_of_utterances(source), DIALOGUE
    corpus, _ = build(
        rows,
        {"text": text, "audio": audio, "visual": visual},
        argparse.Namespace(emotions=emotions, unlabelled=(), merge={}),
        name=name or stem,
        cache=Cache(local_path(cache)) if cache else None,
        jobs=jobs,
        log=log or (lambda line: None),
    )
    return corpus


def build(
    rows: Sequence[Row],
    given: Mapping[str, str | None],
    labels: argparse.Namespace,
    *,
    name: str,
    cache: Cache | None,
    jobs: int = 1,
    skip_bad: bool = False,
    strict: bool = False,
    log: Log,
) -> tuple[Corpus, Extracted]:
    """Makes a corpus of the rows of a manifest.

    Args:
      rows: with the utterances of each conversation together and in order.
      given: modality -> extractor, None = none; all None = those that need no weights.
      labels: parsed flags of `jmer.data.readers.labels.add_label_arguments`.
      name: of the corpus.
      cache, jobs, log: see `jmer.extract.work.extract_features`.
      skip_bad: whether rows whose recording cannot be read are left without its features.
      strict: whether damage is an error.

    Returns:
      The corpus, and what came of the extraction.

    Raises:
      UserError: naming what is wrong; before any work, as far as it can be known.
    """
    indices, emotions = labels_of_rows(rows, labels)
    extractors = {modality: make_extractor(one, modality) for modality, one in _chosen(rows, given).items()}
    check_same_kind(extractors)
    for extractor in extractors.values():
        extractor.check()
    rows = readable(rows, extractors, skip=skip_bad)
    if cache:
        cache.check()
    extracted = extract_features(rows, extractors, cache, jobs=jobs, log=log)
    _report(extracted, strict=strict)
    return make_corpus_of(rows, indices, emotions, extracted, identities(extractors), name=name), extracted


def _chosen(rows: Sequence[Row], given: Mapping[str, str | None]) -> dict[str, str]:
    """Returns modality -> extractor as a command line names it; without any, those that need no weights.

    Args:
      rows: of the manifest.
      given: modality -> what the command line says, None = nothing.
    """
    named = {modality: name for modality, name in given.items() if name}
    if named:
        return named
    there = {"text": any(row.transcript for row in rows), "audio": any(row.file for row in rows)}
    return {modality: name for modality, name in DEFAULTS.items() if there[modality]}


def readable(rows: Sequence[Row], extractors: Mapping[str, Extractor], *, skip: bool) -> list[Row]:
    """Returns the rows, without recordings that cannot be read.

    Args:
      rows: of the manifest.
      extractors: modality -> extractor.
      skip: whether such a row keeps its transcript alone; otherwise it is an error.

    Raises:
      UserError: with a line per row, the first ten of them.
    """
    defects = check_recordings(rows, extractors)
    if defects and not skip:
        lines = list(defects.values())
        more = [f"and {len(lines) - SHOWN_DEFECTS} more"] if len(lines) > SHOWN_DEFECTS else []
        raise UserError(*lines[:SHOWN_DEFECTS], *more, "correct these rows, or leave them without features: --skip-bad")
    for line in defects.values():
        warn(line)
    return [dataclasses.replace(row, file=None) if position in defects else row for position, row in enumerate(rows)]


def _report(extracted: Extracted, *, strict: bool) -> None:
    """Warns of what is damaged and of extractors that failed. Raises UserError if `strict` and there is any."""
    lines = [*extracted.warnings, *extracted.failures]
    if strict and lines:
        raise UserError(*lines[:SHOWN_DEFECTS])
    for line in lines:
        warn(line)
