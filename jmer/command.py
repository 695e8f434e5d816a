"""Command lines: a parser and an exit status that report a mistake in one line, never in a traceback."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jmer.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UserError` where argparse prints its usage and exits."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def launch(command: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs a command with the command line of this process, and ends the process with its exit status."""
    sys.unraisablehook = _report_unraisable
    sys.exit(exit_status(command, sys.argv[1:]))


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
    try:
        status = command(arguments) or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # As of `| head`. What is still to be flushed when Python exits must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except MemoryError as error:
        message = f"not enough memory ({error}): free some, or lower training.batch_size if it is training"
    print(f"error: {message}", file=sys.stderr)
    return 2
