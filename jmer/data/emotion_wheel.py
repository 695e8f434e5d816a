"""How alike two emotions are, by their places on the wheel of valence and arousal that LSDGNN trains with.

An emotion is a point on the unit circle, neutral the origin; angles count from high valence towards high arousal.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jmer.errors import UserError

NEUTRAL = "neutral"
# Degrees, and the names that the public corpora have for the emotion.
_WHEEL = {
    27.0: ("happiness", "happy", "joy", "joyful"),
    63.0: ("excitement", "excited"),
    81.0: ("surprise", "surprised"),
    99.0: ("anger", "angry", "mad"),
    153.0: ("disgust", "disgusted"),
    171.0: ("fear", "fearful", "scared"),
    189.0: ("frustration", "frustrated"),
    261.0: ("sadness", "sad"),
}
ANGLES: Mapping[str, float] = {name: angle for angle, names in _WHEEL.items() for name in names}
"""Emotion -> its angle in degrees."""
NEUTRALS = (NEUTRAL, "none", "no emotion")


def similarities(emotions: Sequence[str], angles: Sequence[str] = ()) -> np.ndarray:
    """Returns the similarity of each pair of emotions, float64 `[C, C]`.

    Of two emotions on the circle it is the cosine of the angle between them, at least 0, and 0 if one has a positive
    and the other a negative valence; if one of them is neutral, it is 1/C.

    Args:
      emotions: names in the order of their labels; one without an angle counts as neutral.
      angles: see `given_angles`.

    Raises:
      UserError: see `given_angles`.
    """
    found = _angles(emotions, angles)
    degrees = np.radians([0.0 if angle is None else angle for angle in found])
    neutral = np.array([angle is None for angle in found])
    valence = np.cos(degrees)
    similar = np.maximum(np.cos(degrees[:, None] - degrees[None]), 0.0)
    similar[np.multiply.outer(valence, valence) < 0] = 0.0
    similar[neutral[:, None] | neutral[None]] = 1 / len(emotions)
    return similar


def without_angle(emotions: Sequence[str], angles: Sequence[str] = ()) -> list[str]:
    """Returns the emotions that count as neutral, though they are not called so, for want of an angle."""
    given = given_angles(emotions, angles)
    found = zip(emotions, _angles(emotions, angles), strict=True)
    return [name for name, angle in found if angle is None and name not in given and _plain(name) not in NEUTRALS]


def given_angles(emotions: Sequence[str], angles: Sequence[str]) -> dict[str, float | None]:
    """Reads angles that a configuration gives, in place of those of `ANGLES`.

    Args:
      emotions: all names.
      angles: `emotion=degrees`, or `emotion=neutral`.

    Returns:
      Emotion -> degrees, None = neutral.

    Raises:
      UserError: if one is not of that form, or names no emotion of the corpus.

    >>> given_angles(("calm", "bored"), ("calm=-40", "bored=neutral"))
    {'calm': -40.0, 'bored': None}
    """
    found: dict[str, float | None] = {}
    for entry in angles:
        name, _, text = (part.strip() for part in entry.rpartition("="))
        if name not in emotions:
            raise UserError(
                f"curriculum.angles has '{entry}': give EMOTION=DEGREES or EMOTION={NEUTRAL}, with an emotion among "
                f"{', '.join(emotions)}"
            )
        try:
            found[name] = None if text == NEUTRAL else float(text)
        except ValueError:
            found[name] = math.nan
        if found[name] is not None and not math.isfinite(found[name] or 0.0):
            raise UserError(f"curriculum.angles has '{entry}': give a number of degrees, or {NEUTRAL}")
    return found


def _angles(emotions: Sequence[str], angles: Sequence[str]) -> list[float | None]:
    given = given_angles(emotions, angles)
    return [given[name] if name in given else ANGLES.get(_plain(name)) for name in emotions]


def _plain(name: str) -> str:
    return name.strip().lower()
