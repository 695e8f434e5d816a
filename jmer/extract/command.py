"""`jmer extract MANIFEST DEST`: makes a corpus of recordings and transcripts.

A manifest is a csv or jsonl file with a row per utterance: `conversation`, `speaker`, `transcript`, `file`, `start`,
`end`, `label`, `split` (all but the first are optional, see `jmer.extract.manifest`). A recording with subtitles beside
it, or subtitles alone, become a corpus without labels.

    jmer extract talk.csv corpora/talk                                  text by hashing, sound by jmer's own set
    jmer extract talk.csv corpora/talk --text bert:models/minilm --audio acoustic --visual faces:fer.tflite
    jmer extract --list                                                 extractors, their options and licences

What was computed is kept in a cache beside the corpus, so that the same command resumes where it was stopped, and
features are computed once. The corpus' card names the extractors; a run that is trained on it refuses features of
others, and `jmer predict RUN talk.csv` extracts with the same ones.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jmer.command import Parser, show
from jmer.data.finishing import add_corpus_arguments, check_new, save_finished
from jmer.data.readers.labels import add_label_arguments
from jmer.extract.arguments import add_source_arguments
from jmer.extract.build import DEFAULTS, build
from jmer.extract.cache import Cache
from jmer.extract.corpus import missing_lines
from jmer.extract.registry import CLASSES, described, extractor_class
from jmer.extract.sources import rows_of
from jmer.modalities import MODALITIES

PROGRAM = "python -m jmer.extract"
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
    rows = rows_of(options.manifest, options)
    cache = Cache(options.cache or options.dest.with_name(options.dest.name + CACHE_SUFFIX))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        corpus, extracted = build(
            rows,
            {modality: getattr(options, modality) for modality in MODALITIES},
            options,
            name=options.manifest.stem,
            cache=cache,
            jobs=options.jobs,
            skip_bad=options.skip_bad,
            strict=options.strict,
            log=show,
        )
    except KeyboardInterrupt:
        show(f"what was computed is kept in {cache.folder}: the same command resumes", sys.stderr)
        raise
    save_finished(corpus, options, missing_lines(extracted))
    return 1 if extracted.failures else 0


def _parser(program: str) -> Parser:
    parser = Parser(prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "manifest",
        type=Path,
        metavar="MANIFEST",
        help="a .csv or .jsonl file with a row per utterance; or a recording with subtitles, or subtitles alone",
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
    parser.add_argument(
        "--strict", action="store_true", help="stop if a recording is shorter than its rows say, damaged or clipped"
    )
    add_source_arguments(parser)
    add_label_arguments(parser, "those of the labels, in the usual order")
    return parser
