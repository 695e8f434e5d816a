"""The flags of the commands that train and use runs, and changes of a configuration's fields among them."""

import argparse
import difflib
import re
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

from jmer.cli.cluster import HEARTBEAT_TIMEOUT, START_TIMEOUT
from jmer.command import Parser, show
from jmer.errors import UserError
from jmer.extract.arguments import add_source_arguments
from jmer.modalities import MODALITIES

MAIN = "python -m jmer.main"
FIELD = "--config."
STANDARD_INPUT = "-"
LINE_WIDTH = 120
# Column in which the documentation of a field starts.
DOC_COLUMN = 42


def make_parser(program: str, usage: str, description: str) -> Parser:
    """Returns a parser whose `--help` is a flag like others, since `--config` adds to the help."""
    parser = Parser(
        prog=program,
        usage=f"{program} {usage} [{FIELD}SECTION.FIELD=VALUE ...] [flags]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this help, with --config also its fields")
    return parser


def add_config_flag(parser: Parser, purpose: str) -> None:
    """Adds `--config`."""
    parser.add_argument("--config", metavar="EXPERIMENT[:VARIANT,...]", help=purpose)


def add_corpus_flag(parser: Parser) -> None:
    """Adds `--corpus`."""
    parser.add_argument(
        "--corpus",
        metavar="CORPUS",
        help=f"a corpus by its folder, or a built-in one by its name; short for {FIELD}data.path=CORPUS",
    )


def add_input_flags(parser: Parser) -> None:
    """Adds what is to be predicted, and the flags that make features of it."""
    parser.add_argument(
        "input",
        nargs="?",
        metavar="INPUT",
        help="a manifest (.csv, .jsonl), a recording, subtitles, a dialogue (.json; - = standard input), or a "
        "corpus, as --corpus",
    )
    add_source_arguments(parser)
    for modality in MODALITIES:
        parser.add_argument(
            f"--{modality}",
            metavar="EXTRACTOR",
            help=f"the extractor that made the {modality} features of training, if its files are elsewhere now",
        )
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where features are kept (default: nowhere)")


def add_out_flag(parser: Parser) -> None:
    """Adds `--out`."""
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="a new folder for the results, as of a run that cannot be written (default: the run's own folder; what is "
        "predicted of an input that is no corpus is then only shown)",
    )


def add_training_flags(parser: Parser) -> None:
    """Adds the flags for what is trained and where."""
    add_config_flag(
        parser,
        "an experiment by its name (lfvd_meld) or its Python file, or a model by its name, with variants; "
        f"{FIELD}SECTION.FIELD=VALUE changes a field",
    )
    add_corpus_flag(parser)
    parser.add_argument(
        "--workdir",
        metavar="FOLDER",
        help="the run's folder (default: in runs/, named after the experiment and its fields)",
    )
    parser.add_argument(
        "--change-on-resume",
        metavar="FIELD,...",
        help="resume with the given learning rate (optimizer.learning_rate; also optimizer.weight_decay or "
        "training.patience), though the run had another one; its report says so",
    )


def add_process_flags(parser: Parser) -> None:
    """Adds the flags that make several processes work together."""
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="for several processes: the address of process 0; or auto, under SLURM, Open MPI, Kubernetes or on a TPU",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many (default: what the launcher tells)")
    parser.add_argument("--process", type=int, metavar="I", help="which it is, from 0 (default: likewise)")
    parser.add_argument(
        "--local-devices", type=_indices, metavar="I,...", help="GPUs that it takes (default: its part)"
    )
    parser.add_argument(
        "--start-timeout",
        type=_seconds,
        default=START_TIMEOUT,
        metavar="S",
        help="wait so long for the others (default: %(default)s)",
    )
    parser.add_argument(
        "--heartbeat-timeout",
        type=_seconds,
        default=HEARTBEAT_TIMEOUT,
        metavar="S",
        help="end if one stands still for so long (default: %(default)s)",
    )


def _indices(text: str) -> tuple[int, ...]:
    indices = tuple(int(index) for index in text.split(",") if index.isdecimal())
    if len(indices) != text.count(",") + 1 or len(set(indices)) != len(indices):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of different indices, such as 0,1")
    return indices


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds, such as 60")
    return int(text)


def parse(parser: Parser, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Returns the flags, and the changes of fields as `section.field` -> text.

    Raises:
      UserError: for an unknown flag, a field without a value, or flags that do not go together.
    """
    arguments, changes = _split_fields(arguments)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = re.findall(r"^  (--[\w-]+)", parser.format_help(), re.MULTILINE)
        close = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}? See" if close else "see"
        raise UserError(f"unknown argument '{unknown[0]}': {hint} `{parser.prog} --help`")
    if options.corpus is not None:
        changes["data.path"] = options.corpus
    return options, changes


def command_line(arguments: Sequence[str], program: str = MAIN) -> str:
    """Returns what a shell takes to run a program with these arguments."""
    return f"{program} {shlex.join(arguments)}"


def _split_fields(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the arguments without changes of fields, and these changes."""
    others, changes = [], {}
    words = iter(arguments)
    for word in words:
        if not word.startswith(FIELD):
            others.append(word)
            continue
        name, equals, text = word.removeprefix(FIELD).partition("=")
        changes[name] = text if equals else next(words, "--")
        if changes[name].startswith("--"):
            raise UserError(f"{FIELD}{name} has no value: write {FIELD}{name}=VALUE")
    return others, changes


def show_help(parser: Parser, config: str | None) -> int:
    """Prints the help, with the fields of an experiment if one is given; returns the exit status."""
    show(parser.format_help().removesuffix("\n") + (f"\n\n{_fields_help(config)}" if config else ""))
    return 0


def _fields_help(source: str) -> str:
    """Returns a line, or more if they are long, for each field of an experiment: its name, value and documentation."""
    from jmer.config import flatten
    from jmer.experiment import get_config
    from jmer.field_docs import field_docs

    config = get_config(source)
    docs = field_docs(config.model.name)
    fields = [_field_help(f"  {name}={value}", docs.get(name, "")) for name, value in flatten(config).items()]
    return "\n".join([f"fields of {source}, each changed by {FIELD}SECTION.FIELD=VALUE:", *fields])


def _field_help(field: str, doc: str) -> str:
    first = field.ljust(DOC_COLUMN - 2) + "  "
    return (
        textwrap.fill(doc.removesuffix("."), LINE_WIDTH, initial_indent=first, subsequent_indent=" " * DOC_COLUMN)
        or field
    )
