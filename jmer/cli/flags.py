"""The flags of the commands that train and use runs, and changes of a configuration's fields among them."""

import argparse
import difflib
import re
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

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
        help="with several processes, the address of process 0; auto on a cluster that JAX detects",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="the number of processes")
    parser.add_argument("--process", type=int, metavar="I", help="the index of this process, from 0")


def parse(parser: Parser, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Returns the flags, and the changes of fields as `section.field` -> text.

    Raises:
      UserError: for an unknown flag, a field without a value, or flags that do not go together.
    """
    arguments, changes = _split_fields(arguments)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        flag = unknown[0].lstrip("-").partition("=")[0]
        close = difflib.get_close_matches(flag, vars(options), n=1)
        hint = f"did you mean --{close[0]}? " if close else ""
        raise UserError(f"unknown argument '{unknown[0]}': {hint}See `{parser.prog} --help`")
    if options.corpus is not None:
        changes["data.path"] = options.corpus
    _check_processes(options.coordinator, options.processes, options.process)
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


def _check_processes(coordinator: str | None, processes: int | None, process: int | None) -> None:
    if (coordinator, processes, process) in ((None, None, None), ("auto", None, None)):
        return
    if coordinator is None or processes is None or process is None:
        raise UserError("several processes need --coordinator, --processes (their number) and --process (its index)")
    if not 0 <= process < processes:
        raise UserError(f"--process is {process}, but the {processes} processes are numbered from 0")
    if coordinator != "auto" and not _is_address(coordinator):
        raise UserError(f"--coordinator is '{coordinator}': give HOST:PORT of process 0, or auto")


def _is_address(text: str) -> bool:
    found = re.fullmatch(r".+:(\d+)", text)
    return found is not None and int(found[1]) < 2**16


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
