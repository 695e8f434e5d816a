"""The exception for invalid input."""


class UserError(ValueError):
    """Invalid input of a user: a file, a field, an argument.

    The message names the file, field or argument, the error and the remedy. Command-line programs print it without a
    traceback and exit with status 2; the library does not catch it.

    Args:
      lines: of the message, usually one.
    """

    def __init__(self, *lines: str):
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(self.args)
