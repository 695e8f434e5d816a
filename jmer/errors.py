"""The one exception that means: the input is at fault, and this line says what to do."""


class UserError(ValueError):
    """A mistake in what a user gave (a file, a field, a flag).

    The message is one line that names the file or field, what is wrong with it and the remedy. Command-line programs
    print it without a traceback and exit with status 2; library code lets it pass.
    """
