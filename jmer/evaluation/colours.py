"""A colour for each emotion, the same in pages and subtitles, legible on light and on dark.

Colour is never all that tells emotions apart: their names stand beside it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jmer.evaluation.plots import STYLES

PALETTE = tuple(colour for colour, _ in STYLES)
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK = PALETTE
WHITE = "#ffffff"
# The usual colours of emotions that the public corpora have, in all their spellings there.
USUAL = {
    BLUE: ("sad", "sadness"),
    VERMILION: ("angry", "anger", "mad", "negative"),
    GREEN: ("disgust", "disgusted", "positive"),
    PURPLE: ("fear", "scared", "fearful"),
    SKY: ("surprise", "surprised"),
    ORANGE: ("happy", "happiness", "joy", "joyful"),
    BLACK: ("neutral", "none", "no emotion"),
}
_USUAL = {name: colour for colour, names in USUAL.items() for name in names}

LIGHT, DARK = "#f5f6f7", "#1f2428"
"""The darkest light and the lightest dark ground on which a colour of an emotion is text."""
CONTRAST = 4.5
"""Of text, at least: level AA of the Web Content Accessibility Guidelines."""


class Colour(NamedTuple):
    """A colour, as `#rrggbb` on a light and on a dark ground."""

    on_light: str
    on_dark: str


def emotion_colours(emotions: Sequence[str]) -> list[Colour]:
    """Returns the colour of each emotion: the usual one, or else one that is left over.

    Colours repeat where there are more than seven emotions.
    """
    wanted = [_USUAL.get(emotion.strip().lower()) for emotion in emotions]
    # Of two names for one colour, the first has it.
    own = [colour if colour and wanted.index(colour) == i else None for i, colour in enumerate(wanted)]
    free = [colour for colour in PALETTE if colour not in own] or list(PALETTE)
    others = iter(free * len(own))
    chosen = [colour or next(others) for colour in own]
    # Black is the colour of plain text, which is white on a dark ground.
    return [Colour(_legible(c, LIGHT), _legible(WHITE if c == BLACK else c, DARK)) for c in chosen]


def contrast(colour: str, ground: str) -> float:
    """Returns the ratio of the luminances of two colours, from 1 to 21, as the accessibility guidelines define it."""
    lower, upper = sorted((_luminance(colour), _luminance(ground)))
    return (upper + 0.05) / (lower + 0.05)


def _legible(colour: str, ground: str) -> str:
    """Returns a colour, mixed with just as much black on a light ground, or white on a dark one, as it needs."""
    end = 0 if _luminance(ground) > 0.5 else 255
    shades = (_mixed(colour, end, share / 100) for share in range(101))
    return next(shade for shade in shades if contrast(shade, ground) >= CONTRAST)


def _mixed(colour: str, end: int, share: float) -> str:
    return "#" + "".join(f"{round(value + share * (end - value)):02x}" for value in _channels(colour))


def _luminance(colour: str) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(colour))
    ]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
