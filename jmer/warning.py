"""Warnings: lines on the console about what is done nevertheless."""

import logging

from jmer.text import printable


def warn(line: str) -> None:
    """Says on the console what the user should know of a source that is read nevertheless."""
    logging.getLogger(__name__).warning("warning: %s", printable(line))
