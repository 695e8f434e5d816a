"""The exception for invalid input."""


class UserError(ValueError):
    """Invalid input of a user: a file, a field, an argument.

    The message names the file, field or argument, the error and the remedy. Command-line programs print it without a
    traceback and exit with status 2; the library does not catch it.
    """
