"""The command line of studies: common flags, exit status, interruption."""

import argparse
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.grid.cells import Outcome
from jmer.cli.flags import FIELD
from jmer.command import Parser, exit_status, show
from jmer.errors import UserError

PLAIN = "plain_features"

# Fields that the grid sets for each run -> the flag to use instead.
RESERVED = {"seed": "--seeds", "seeds": "--seeds"}


def make_parser(
    program: str,
    description: str,
    *,
    seeds: int,
    corpora: Sequence[str] | None,
    several_variants: bool = False,
) -> Parser:
    """Returns a parser with the flags that all studies have.

    Args:
      program: `experiments.name`.
      description: shown by `--help`.
      seeds: default of `--seeds`.
      corpora: default of `--corpus`; empty = the flag is required; None = the program chooses, and receives an empty
        list.
      several_variants: whether `--variant` can be repeated, and is a list.
    """
    parser = Parser(
        prog=f"python -m {program}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    required = corpora is not None and not corpora
    default = f" (default: {', '.join(corpora)})" if corpora else ""
    parser.add_argument(
        "--corpus",
        action="append",
        type=lambda path: str(Path(path)),
        required=required,
        dest="corpora",
        metavar="CORPUS",
        help=f"a folder that jmer.data.convert wrote, or the name of a synthetic corpus; can be repeated{default}",
    )
    parser.set_defaults(default_corpora=tuple(corpora or ()))
    parser.add_argument("--seeds", type=int, default=seeds, help=f"runs per row, with seeds from 0 (default: {seeds})")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of worker processes (default: 1)")
    parser.add_argument(
        "--vectorize",
        type=int,
        default=1,
        metavar="N",
        help="train up to N runs in one program (vmap): seeds, and rows that differ in weights of loss terms, learning "
        "rate or weight decay only (default: 1)",
    )
    parser.add_argument(
        "--variant",
        action="append" if several_variants else "store",
        default=None if several_variants else PLAIN,
        help="variants of jmer's experiments, separated by commas; '' = the published hyperparameters (default: "
        f"{PLAIN}, for features that were not fine-tuned)" + ("; can be repeated" if several_variants else ""),
    )
    parser.epilog = f"{FIELD}SECTION.FIELD=VALUE changes a field of every run; {FIELD}data.path=PATH is --corpus PATH."
    return parser


def parse(parser: Parser, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Returns the flags, and the changed fields as `section.field` -> text. Raises UserError for an invalid flag."""
    options, rest = parser.parse_known_args(arguments)
    corpora, changes = options.corpora or [], {}
    for word in rest:
        name, equals, text = word.removeprefix(FIELD).partition("=")
        if not (word.startswith(FIELD) and equals and text):
            raise UserError(
                f"unknown flag '{word}' (see `{parser.prog} --help`); fields are set by {FIELD}SECTION.FIELD=VALUE"
            )
        if name in RESERVED:
            raise UserError(f"{FIELD}{name} cannot be set: use {RESERVED[name]}")
        if name == "data.path":
            corpora.append(str(Path(text)))
        else:
            changes[name] = text
    options.corpora = corpora or list(options.default_corpora)
    for flag in ("seeds", "jobs", "vectorize"):
        if getattr(options, flag) < 1:
            raise UserError(f"--{flag} is {getattr(options, flag)}: give at least 1")
    return options, changes


def choices(flag: str, text: str, names: Mapping | Sequence[str]) -> list[str]:
    """Splits a comma-separated choice. Raises UserError for a name that is not among `names`."""
    wanted = list(dict.fromkeys(text.split(",")))
    for name in wanted:
        if name not in names:
            raise UserError(f"unknown name '{name}' in {flag}: choose from {', '.join(names)}")
    return wanted


def log(line: str) -> None:
    """Prints a line and flushes stdout, so that piped output is up to date."""
    show(line)


def print_report(text: str, outcomes: Sequence[Outcome], out: Path) -> int:
    """Prints a study's text and the paths of its files; returns the exit status: 1 if any run failed."""
    show(f"\n{text}\nwrote {out / 'table.md'} and {out / 'table.csv'}")
    return int(any(outcome.failures for outcome in outcomes))


def launch(program: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Calls a program's `main` and returns its exit status; after SIGINT or SIGTERM it prints how to resume."""

    def interruptible(arguments: Sequence[str]) -> int:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return main(arguments)
        except KeyboardInterrupt:
            command = shlex.join(["python", "-m", program, *arguments])
            show(f"interrupted, all runs are saved; resume with: {command}")
            return 128 + signal.SIGINT
        finally:
            signal.signal(signal.SIGTERM, before)

    return exit_status(interruptible, arguments)
