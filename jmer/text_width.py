"""How many columns of a terminal a text takes, and texts that are cut or filled up to a number of columns.

East Asian wide characters and emoji take two columns; accents, joiners and the later parts of a joined emoji take none.
Terminals that draw a joined emoji part by part show it wider than is said here.
"""

import unicodedata
from collections.abc import Iterator

_JOINER = "\u200d"
_EMOJI_STYLE = "\ufe0f"
_NO_WIDTH = ("Mn", "Me", "Cf")
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
_FLAG_LETTERS = ("\U0001f1e6", "\U0001f1ff")
# The vowels and final consonants of Korean syllables that are written letter by letter.
_HANGUL_REST = ("\u1160", "\u11ff")


def text_width(text: str) -> int:
    """Returns the columns that a text without control characters takes.

    >>> text_width("Zoe\u0301"), text_width("日本"), text_width("👩‍👩‍👧")
    (3, 4, 2)
    """
    return sum(width for _, width in _clusters(text))


def fitted(text: str, width: int, ellipsis: str = "…") -> str:
    """Returns a text that takes `width` columns: filled up with spaces, or cut and followed by an ellipsis.

    An ellipsis must not be wider than that.

    >>> fitted("你好吗", 5), fitted("ok", 5)
    ('你好…', 'ok   ')
    """
    taken = text_width(text)
    if taken > width:
        kept, taken = [], text_width(ellipsis)
        for cluster, columns in _clusters(text):
            if taken + columns > width:
                break
            kept.append(cluster)
            taken += columns
        text = "".join(kept) + ellipsis
    return text + " " * (width - taken)


def _clusters(text: str) -> Iterator[tuple[str, int]]:
    """Yields what a terminal draws as one, and its columns."""
    cluster, width = "", 0
    for character in text:
        if cluster and _joins(character, cluster):
            cluster += character
            if character == _EMOJI_STYLE:
                width = 2
        else:
            if cluster:
                yield cluster, width
            cluster, width = character, _character_width(character)
    if cluster:
        yield cluster, width


def _joins(character: str, cluster: str) -> bool:
    """Whether a character becomes part of the cluster before it."""
    flag = len(cluster) == 1 and _within(cluster, _FLAG_LETTERS) and _within(character, _FLAG_LETTERS)
    return (
        flag
        or cluster.endswith(_JOINER)
        or _within(character, _SKIN_TONES)
        or _within(character, _HANGUL_REST)
        or _character_width(character) == 0
    )


def _character_width(character: str) -> int:
    if unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" or _within(character, _FLAG_LETTERS) else 1


def _within(character: str, bounds: tuple[str, str]) -> bool:
    return bounds[0] <= character <= bounds[1]
