"""`jmer extract MANIFEST DEST`: makes a corpus of recordings and transcripts.

A manifest is a csv or jsonl file with a row per utterance: `conversation`, `speaker`, `transcript`, `file`, `start`,
`end`, `label`, `split` (all but the first are optional, see `jmer.extract.manifest`).

    jmer extract talk.csv corpora/talk                                  text by hashing, sound by jmer's own set
    jmer extract talk.csv corpora/talk --text bert:models/minilm --audio acoustic --visual faces:fer.tflite
    jmer extract --list                                                 extractors, their options and licences

What was computed is kept in a cache beside the corpus, so that the same command resumes where it was stopped, and
features are computed once. The corpus' card names the extractors; a run that is trained on it refuses features of
others, and `jmer predict RUN talk.csv` extracts with the same ones.
"""

import argparse
import dataclasses
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from jmer.batch import MODALITIES
from jmer.command import Parser, show
from jmer.data.finishing import add_corpus_arguments, check_new, save_finished
from jmer.data.readers.conventions import warn
from jmer.data.readers.labels import add_label_arguments
from jmer.errors import UserError
from jmer.extract.cache import Cache
from jmer.extract.corpus import check_same_kind, identities, labels_of_rows, make_corpus_of, missing_lines
from jmer.extract.manifest import SHOWN_DEFECTS, Row, read_manifest
from jmer.extract.protocol import Extractor
from jmer.extract.registry import CLASSES, described, extractor_class, make_extractor
from jmer.extract.work import Extracted, check_recordings, extract_features

PROGRAM = "python -m jmer.extract"
DEFAULTS = {"text": "hashing", "audio": "acoustic"}
CACHE_SUFFIX = ".features"


def extract(arguments: Sequence[str], *, program: str = PROGRAM) -> int:
    """Makes a corpus of recordings and transcripts, and prints its sizes.

    Args:
      arguments: the command line without the program's name.
      program: its name, for the help.

    Returns:
      The exit status, 1 if an extractor failed for some utterances, which lack its features then.

    Raises:
      UserError: if an argument, the manifest or a recording is invalid; no corpus is written then.
    """
    if "--list" in arguments:
        show("\n".join(line for name in CLASSES for line in described(extractor_class(name))))
        return 0
    options = _parser(program).parse_args(arguments)
    check_new(options.dest)
    rows = read_manifest(options.manifest, options.encoding)
    labels, emotions = labels_of_rows(rows, options)
    given = chosen(rows, {m: getattr(options, m) for m in MODALITIES})
    extractors = {modality: make_extractor(name, modality) for modality, name in given.items()}
    check_same_kind(extractors)
    for extractor in extractors.values():
        extractor.check()
    rows = readable(rows, extractors, skip=options.skip_bad)
    cache = Cache(options.cache or options.dest.with_name(options.dest.name + CACHE_SUFFIX))
    cache.check()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    extracted = extract_features(rows, extractors, cache, jobs=options.jobs, log=show)
    report(extracted, strict=options.strict)
    name = options.manifest.stem
    corpus = make_corpus_of(rows, labels, emotions, extracted, identities(extractors), name=name)
    save_finished(corpus, options, missing_lines(extracted))
    return 1 if extracted.failures else 0


def chosen(rows: Sequence[Row], given: Mapping[str, str | None]) -> dict[str, str]:
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


def report(extracted: Extracted, *, strict: bool) -> None:
    """Warns of what is damaged and of extractors that failed. Raises UserError if `strict` and there is any."""
    lines = [*extracted.warnings, *extracted.failures]
    if strict and lines:
        raise UserError(*lines[:SHOWN_DEFECTS])
    for line in lines:
        warn(line)


def _parser(program: str) -> Parser:
    parser = Parser(prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "manifest", type=Path, metavar="MANIFEST", help="a .csv or .jsonl file with a row per utterance"
    )
    add_corpus_arguments(parser)
    for modality in MODALITIES:
        names = [name for name in CLASSES if extractor_class(name).modality == modality]
        default = f" (default, if no modality is given: {DEFAULTS[modality]})" if modality in DEFAULTS else ""
        parser.add_argument(
            f"--{modality}",
            metavar="EXTRACTOR",
            help=f"extractor of {modality} features, as NAME[:ARGUMENT][,OPTION=VALUE...]: {', '.join(names)}{default}",
        )
    parser.add_argument("--list", action="store_true", help="list extractors, their options and licences")
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help=f"where features are kept (default: DEST{CACHE_SUFFIX})"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="recordings at once (default: %(default)s)")
    parser.add_argument("--encoding", default="utf-8-sig", help="of the manifest (default: UTF-8)")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave rows whose recording cannot be read without its features"
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop if a recording is shorter than its rows say, damaged or clipped"
    )
    add_label_arguments(parser, "those of the labels, in the usual order")
    return parser
