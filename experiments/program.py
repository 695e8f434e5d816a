"""What the programs over the runner share: flags, an exit status, and what Ctrl-C says."""

import argparse
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.runner import Outcome
from jmer.command import Parser, exit_status
from jmer.errors import UserError
from jmer.main import FIELD

# Fields that the runner gives each run, and the flag for them.
SETTLED = {"seed": "--seeds", "seeds": "--seeds"}


def make_parser(program: str, description: str, *, seeds: int, corpora: Sequence[str] | None) -> Parser:
    """Returns a parser with the flags of every study.

    Args:
      program: `experiments.name`.
      description: what it does.
      seeds: the default of `--seeds`.
      corpora: the default of `--corpus`; empty = it must be given; None = the program settles it, and gets an empty
        list.
    """
    parser = Parser(
        prog=f"python -m {program}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    needed = corpora is not None and not corpora
    default = f" (default: {', '.join(corpora)})" if corpora else ""
    parser.add_argument(
        "--corpus",
        action="append",
        type=lambda path: str(Path(path)),
        required=needed,
        dest="corpora",
        metavar="CORPUS",
        help=f"a folder that jmer.data.convert made, or a synthetic corpus' name; as often as wanted{default}",
    )
    parser.set_defaults(default_corpora=tuple(corpora or ()))
    parser.add_argument("--seeds", type=int, default=seeds, help=f"runs per row: seeds from 0 (default: {seeds})")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at the same time (default: 1)")
    parser.add_argument(
        "--together",
        type=int,
        default=1,
        metavar="N",
        help="runs that one program trains at once, at most: seeds, and rows that differ by weights of loss terms or "
        "rates (default: 1)",
    )
    parser.add_argument(
        "--variant",
        default="plain_features",
        help="variants of every experiment, joined by commas; '' = hyperparameters as published (default: "
        "plain_features, for features that were not fine-tuned)",
    )
    parser.epilog = f"{FIELD}SECTION.FIELD=VALUE changes a field of every run; {FIELD}data.path=PATH is --corpus PATH."
    return parser


def parse(parser: Parser, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Returns the flags, and the changes of fields as `section.field` -> text. Raises UserError for a mistake."""
    options, rest = parser.parse_known_args(arguments)
    corpora, changes = options.corpora or [], {}
    for word in rest:
        name, equals, text = word.removeprefix(FIELD).partition("=")
        if not (word.startswith(FIELD) and equals and text):
            raise UserError(f"'{word}' is no flag (see `{parser.prog} --help`); fields are {FIELD}SECTION.FIELD=VALUE")
        if name in SETTLED:
            raise UserError(f"{FIELD}{name} cannot be given: use {SETTLED[name]}")
        if name == "data.path":
            corpora.append(str(Path(text)))
        else:
            changes[name] = text
    options.corpora = corpora or list(options.default_corpora)
    for flag in ("seeds", "jobs", "together"):
        if getattr(options, flag) < 1:
            raise UserError(f"--{flag} is {getattr(options, flag)}: give at least 1")
    return options, changes


def chosen(flag: str, text: str, names: Mapping | Sequence[str]) -> list[str]:
    """Splits a comma-separated choice. Raises UserError for a name that is not among `names`."""
    wanted = list(dict.fromkeys(text.split(",")))
    for name in wanted:
        if name not in names:
            raise UserError(f"{flag} has '{name}': choose from {', '.join(names)}")
    return wanted


def say(line: str) -> None:
    """Prints a line at once, so that it is there when the output is piped."""
    print(line, flush=True)


def report(text: str, outcomes: Sequence[Outcome], out: Path) -> int:
    """Prints a study's text and says where it is; returns the exit status: 1 if any run failed."""
    print(f"\n{text}\nwrote {out / 'table.md'} and {out / 'table.csv'}")
    return int(any(outcome.failures for outcome in outcomes))


def launch(program: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Runs a program's `main` and returns its exit status; after Ctrl-C or SIGTERM it says how to go on."""

    def stoppable(arguments: Sequence[str]) -> int:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return main(arguments)
        except KeyboardInterrupt:
            command = shlex.join(["python", "-m", program, *arguments])
            print(f"stopped, and every run is saved; the same command goes on: {command}")
            return 128 + signal.SIGINT
        finally:
            signal.signal(signal.SIGTERM, before)

    return exit_status(stoppable, arguments)
