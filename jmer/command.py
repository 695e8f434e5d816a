"""Command lines: a parser and an exit status that report a mistake in one line, never in a traceback.

What programs print goes through `show`, which makes it fit the terminal.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from jmer.errors import UserError
from jmer.files import check_argument
from jmer.text import printable

MISTAKE = 2
"""The exit status after a mistake of the user, as argparse has it."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UserError` where argparse prints its usage and exits."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")

    def _print_message(self, message: str, file: Any = None) -> None:
        show(message.removesuffix("\n"), file)


def show(text: str, file: TextIO | None = None) -> None:
    r"""Prints lines, with escapes such as `\x1b` for control characters and for what the stream's encoding lacks.

    Args:
      text: lines, separated by line feeds; those of a name must be escaped before, see `jmer.text.printable`.
      file: None = standard output.
    """
    stream = sys.stdout if file is None else file
    if stream is None:  # as Python has it where the stream is closed
        return
    encoding = stream.encoding or "utf-8"
    lines = "\n".join(map(printable, text.split("\n")))
    print(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def launch(command: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs a command with the command line of this process, and ends the process with its exit status."""
    sys.unraisablehook = _report_unraisable
    sys.exit(exit_status(command, sys.argv[1:]))


def _open_closed_streams() -> None:
    """Opens standard streams that the shell closed, so that no other file takes their place and their output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest descriptor that is free
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


def _report_unraisable(unraisable: Any) -> None:
    """Drops what Orbax's other reads leave behind when one read of a damaged checkpoint has failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def exit_status(command: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit status, after a line on stderr where it went wrong.

    Args:
      command: takes the arguments; returns a status, None = 0.
      arguments: the command line without the program's name.

    Returns:
      The command's status; 2 after a mistake; 128 + signal after Ctrl-C, or when the reader of the output has gone.
    """
    _open_closed_streams()
    try:
        _check_encoding(arguments)
        for argument in arguments:
            check_argument(argument)
        status = command(arguments) or 0
        sys.stdout.flush()
        return status
    except BaseException as error:
        described = describe_error(error)
        if described is None:
            raise
        if isinstance(error, BrokenPipeError):
            # What is still to be flushed when Python exits must go somewhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status, lines = described
        show_error(lines)
        return status


def describe_error(error: BaseException) -> tuple[int, tuple[str, ...]] | None:
    """Returns the exit status that an error of a command gives and the lines that describe it.

    None is returned for an exception that is a defect of the program, and for `SystemExit`.
    """
    match error:
        case UserError():
            return MISTAKE, error.args
        case KeyboardInterrupt():
            return 128 + signal.SIGINT, ("interrupted",)
        case BrokenPipeError():  # as of `| head`
            return 128 + signal.SIGPIPE, ()
        case OSError():
            return MISTAKE, (f"{error.filename}: {error.strerror}" if error.filename else str(error),)
        case MemoryError():
            remedy = "free some, or lower training.batch_size if it is training"
            return MISTAKE, (f"not enough memory ({error}): {remedy}",)
        case ImportError() if "failed to map segment" in str(error):  # otherwise a package is missing or broken
            return MISTAKE, (f"not enough memory to load {error}: free some, or raise the limit of `ulimit -v`",)
    return None


def show_error(lines: Sequence[str]) -> None:
    """Prints lines about an error on stderr."""
    if lines:
        first = lines[0] if lines[0] == "interrupted" else f"error: {lines[0]}"
        show("\n".join(map(printable, (first, *lines[1:]))), sys.stderr)


def _check_encoding(arguments: Sequence[str]) -> None:
    """Raises UserError for an argument that no report or record could hold."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            encoding = sys.getfilesystemencoding()
            remedy = "" if encoding == "utf-8" else ", or set PYTHONUTF8=1 if it is UTF-8"
            raise UserError(f"'{argument}' on the command line is not {encoding}: rename it{remedy}") from error
