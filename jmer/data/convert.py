"""`python -m jmer.data.convert FORMAT SOURCE... DEST`: converts feature files of other formats into a saved corpus."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jmer.command import Parser, exit_status
from jmer.data.finishing import add_corpus_arguments, check_new, save_finished
from jmer.data.readers import Reader, dag_json, emotion2vec, feature_pickles, frame_files, limits, meld_csv, table

PROGRAM = "python -m jmer.data.convert"

FORMATS: dict[str, Reader] = {
    "table": table,
    "pickle": feature_pickles,
    "dag-json": dag_json,
    "meld-csv": meld_csv,
    "frames": frame_files,
    "emotion2vec": emotion2vec,
}


def convert(arguments: Sequence[str], *, program: str = PROGRAM) -> None:
    """Converts feature files into a saved corpus and prints its sizes.

    Args:
      arguments: the command line without the program's name.
      program: its name, for the help.

    Raises:
      UserError: if an argument or a source is invalid; nothing is written then.
    """
    outer = Parser(prog=program, description="Converts feature files of other formats into a saved corpus.")
    outer.add_argument("format", choices=FORMATS, help=f"format of the sources; `{program} FORMAT --help` describes it")
    outer.add_argument("arguments", nargs=argparse.REMAINDER, metavar="SOURCE... DEST")
    chosen = outer.parse_args(arguments)
    reader = FORMATS[chosen.format]
    options = _parser(f"{program} {chosen.format}", reader).parse_intermixed_args(chosen.arguments)
    check_new(options.dest)
    save_finished(reader.read(options.sources, options), options)


def _parser(program: str, reader: Reader) -> Parser:
    parser = Parser(
        prog=program,
        description=reader.__doc__,
        epilog=limits.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="a file or folder to read")
    add_corpus_arguments(parser)
    reader.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(convert, sys.argv[1:]))
