"""Strings from outside: what a name may be, what a transcript becomes, and how any text is shown on a terminal.

**Names** (of corpora, splits, folds, conversations, utterances, speakers, emotions) are written to tables and read
back, so one that would not come back is refused, see `name_fault`, and any other is kept as it is: with quotes, commas,
spaces at the ends, `NA`, `007`, `=1+1`, in any language, with emoji.

**Transcripts** and descriptions are only shown, so that what cannot be kept is replaced, see `storable`.

**Terminals** get what `printable` returns.
"""

import re
from typing import Any

LONGEST_NAME = 1_000
LONGEST_TRANSCRIPT = 100_000

_CONTROL = "\x00-\x1f\x7f"
# Among the control characters above ASCII are what quotes and dashes of Windows-1252 become when they are read as
# latin-1: harmless to files, though some move a terminal.
_CONTROL_ABOVE_ASCII = "\x80-\x9f"
_LINE_BREAK = "\x85\u2028\u2029"
# Halves of characters outside the basic plane: such strings have no encoding in UTF-8.
_SURROGATE = "\ud800-\udfff"
_NO_NAME = re.compile(f"[{_CONTROL}{_LINE_BREAK}{_SURROGATE}]")
_NOT_STORABLE = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f{_SURROGATE}]")
# Overrides and isolates of the writing direction make a terminal show other text than there is.
_NOT_PRINTABLE = re.compile(f"[{_CONTROL}{_CONTROL_ABOVE_ASCII}{_LINE_BREAK}{_SURROGATE}\u202a-\u202e\u2066-\u2069]")


def name_fault(name: Any) -> str | None:
    """Returns why a value is no name, as the end of a sentence that begins with it; None if it is one.

    A name is a string of at most `LONGEST_NAME` characters, without ASCII's control characters and line breaks (a lone
    carriage return shifts the rows of a csv file), and without lone surrogates, which UTF-8 cannot hold.
    """
    if not isinstance(name, str):
        return f"is of type {type(name).__name__}: expected a string"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters: names have at most {LONGEST_NAME}"
    found = _NO_NAME.search(name)
    if not found:
        return None
    kind = "half of a character, which UTF-8 cannot hold" if "\ud800" <= found[0] <= "\udfff" else "a control character"
    return f"contains U+{ord(found[0]):04X}, {kind}: rename it"


def storable(text: str) -> str:
    """Returns a text with U+FFFD for what UTF-8 cannot hold (lone surrogates), and for control characters.

    Tabs, line feeds and carriage returns are kept.
    """
    return _NOT_STORABLE.sub("\ufffd", text)


def printable(text: str) -> str:
    r"""Returns a text on one line, with escapes such as `\n` and `\x1b` for what would move or confuse a terminal.

    >>> printable("a\x1b[2J\r\nb")
    'a\\x1b[2J\\r\\nb'
    """
    return _NOT_PRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
