"""The exception for invalid input."""

LONGEST_LINE = 2_000


class UserError(ValueError):
    """Invalid input of a user: a file, a field, an argument.

    The message names the file, field or argument, the error and the remedy. Command-line programs print it without a
    traceback and exit with status 2; the library does not catch it.

    Args:
      lines: of the message, usually one. Of a line that quotes a file at length, the middle is left out.
    """

    def __init__(self, *lines: str):
        super().__init__(*map(_shortened, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


def _shortened(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[: half - 1]}…{line[-half:]}"
