"""Text files in the encodings that spreadsheets and old releases have: UTF-8, UTF-16, Windows-1252."""

import codecs
import dataclasses
import re
from pathlib import Path

from jmer.guard import guarded
from jmer.warning import warn

BLOCK = 1 << 20
DELIMITERS = ",;\t|"
SHOWN_LINES = 20  # in which numbers with decimal commas are looked for

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECIMAL_COMMA, _DECIMAL_POINT = re.compile(r"[+-]?[0-9]+,[0-9]+"), re.compile(r"[+-]?[0-9]+\.[0-9]+")


@dataclasses.dataclass(frozen=True)
class CsvLayout:
    """How cells of a csv file are separated, and the character before the decimals of numbers."""

    delimiter: str
    decimal_point: str


def encoding_of(path: Path) -> str:
    """Returns the encoding of a text file; `utf-8` also if it begins with a byte order mark.

    Without a mark, text that is not valid UTF-8 is taken for UTF-16 if every other byte is zero, else for Windows-1252.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        head = block = file.read(BLOCK)
        for mark, encoding in _MARKS:
            if head.startswith(mark):
                return encoding
        if len(head) > 1 and 0 in head[:2]:
            return "utf-16-be" if head[0] == 0 else "utf-16-le"
        try:
            while block:
                decoder.decode(block)
                block = file.read(BLOCK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def read_text(path: Path) -> str:
    """Reads a text file, and says on the console if it is in an encoding that had to be guessed.

    Raises:
      UserError: if it cannot be read, or is in none of the encodings.
    """
    with guarded(str(path), "get the file again"):
        encoding, content = encoding_of(path), path.read_bytes()
    if encoding == "cp1252":
        warn(f"{path} is not in UTF-8: read as Windows-1252; if letters come out wrong, save it as UTF-8")
        # Line by line, since releases put together of several files mix encodings.
        return "".join(map(_decoded_line, content.splitlines(keepends=True))).removeprefix("\ufeff")
    with guarded(str(path), "save it as UTF-8", described=f"is damaged: it begins as {encoding.upper()} but is not"):
        return content.decode("utf-8-sig" if encoding == "utf-8" else encoding).removeprefix("\ufeff")


def _decoded_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def csv_layout(text: str) -> CsvLayout:
    """Finds the layout of a csv file.

    Args:
      text: its beginning, with the header.
    """
    lines = [re.sub(r'"[^"]*"', "", line) for line in text.splitlines()[: SHOWN_LINES + 1]] or [""]
    delimiter = max(DELIMITERS, key=lines[0].count)  # the first of them, a comma, if there is none
    cells = [cell.strip() for line in lines[1:] for cell in line.split(delimiter)]
    has_commas = delimiter != "," and any(map(_DECIMAL_COMMA.fullmatch, cells))
    return CsvLayout(delimiter, "," if has_commas and not any(map(_DECIMAL_POINT.fullmatch, cells)) else ".")


def head_of(path: Path) -> str:
    """Returns the beginning of a text file, for `csv_layout`."""
    with path.open("rb") as file:
        return file.read(BLOCK).decode(encoding_of(path), "ignore").removeprefix("\ufeff")
