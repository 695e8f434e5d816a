"""Markdown that also reads well as plain text."""

import re
from collections.abc import Sequence


def escape_markdown(text: str) -> str:
    """Returns text on one line, with the characters escaped that Markdown would read as markup."""
    # An underscore between letters or digits is no markup, and reads better without a backslash.
    return re.sub(r"[\\`*<|\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(text.split()))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with padded cells, the first column aligned left and the others right.

    Args:
      header: one title per column.
      rows: cells as plain text, which is escaped here; each row as long as the header.
    """
    cells = [[escape_markdown(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (n + 1) + ":" for n in widths[1:])])
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])


def percent(fraction: float) -> str:
    """Returns a fraction in percent with two decimals, without the percent sign."""
    return f"{100 * fraction:.2f}"
