"""One guard around the libraries that read files: whatever they raise becomes one line."""

import contextlib
import re
from collections.abc import Iterator

from jmer.errors import UserError

SHOWN_CHARACTERS = 200


class RefusalError(Exception):
    """A reader refuses what a file contains; the message goes after the name of the file."""


@contextlib.contextmanager
def guarded(what: str, remedy: str, *, described: str = "is truncated or damaged") -> Iterator[None]:
    """Turns what reading a file raises into a UserError of one line.

    A library that gets damaged or forged bytes may raise almost any exception, so all of them are meant.

    Args:
      what: the file, and the part of it that is read.
      remedy: what to do if its content is wrong.
      described: what is wrong if the library does not say that it is anything else.
    """
    try:
        yield
    except UserError:
        raise
    except RefusalError as error:
        raise UserError(f"{what} {error}") from error
    except MemoryError as error:
        raise UserError(f"{what} asks for more memory than there is: check that it is whole, or free some") from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply: {remedy}") from error
    except OSError as error:
        if error.errno and error.strerror:  # from the system, not from a library about the content
            raise UserError(f"cannot read {_place(what, error)}: {error.strerror}") from error
        raise UserError(f"{what} {described}: {remedy} ({_line(error)})") from error
    except NotImplementedError as error:
        raise UserError(f"{what} is in a form that cannot be read ({_line(error)}): save it without") from error
    except Exception as error:
        if "encrypted" in str(error) or "password" in str(error):
            raise UserError(f"{what} is encrypted: save it without a password") from error
        raise UserError(f"{what} {described}: {remedy} ({_line(error)})") from error


def _place(what: str, error: OSError) -> str:
    return what if error.filename is None or str(error.filename) in what else f"{what} ({error.filename})"


def _line(error: Exception) -> str:
    """Returns the first sentence of a library's message; those that follow give advice to programmers."""
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))
    line = re.split(r"(?<=[\w)\]])\. (?=[A-Z])", text)[0] or type(error).__name__
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "..."
