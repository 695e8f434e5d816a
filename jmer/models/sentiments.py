"""The sentiment of an emotion, as its name tells it."""

from collections.abc import Sequence

SENTIMENTS = ("negative", "neutral", "positive")
"""In the order in which models number them."""
CHOICES = (*SENTIMENTS, "none")
"""What an emotion may have: a sentiment or none."""

_OF_EMOTIONS = {
    "positive": {"excited", "happiness", "happy", "joy", "joyful", "peaceful", "positive", "powerful"},
    "neutral": {"neutral", "no emotion", "none"},
    "negative": {
        *("anger", "angry", "disgust", "disgusted", "fear", "fearful", "frustrated", "frustration", "mad", "negative"),
        *("sad", "sadness", "scared"),
    },
}
_OF_EMOTION = {emotion: sentiment for sentiment, emotions in _OF_EMOTIONS.items() for emotion in emotions}
_EITHER = {"surprise", "surprised"}


def sentiments_of(emotions: Sequence[str], surprise: str) -> tuple[str, ...]:
    """Returns the sentiment of each emotion.

    Args:
      emotions: names, in any case; those that the public corpora have are known.
      surprise: sentiment of surprise, whose name tells none.

    Raises:
      ValueError: naming the emotions whose sentiment is not known.
    """
    known = _OF_EMOTION | dict.fromkeys(_EITHER, surprise)
    found = [known.get(emotion.strip().lower().replace("_", " ")) for emotion in emotions]
    unknown = [emotion for emotion, sentiment in zip(emotions, found, strict=True) if sentiment is None]
    if unknown:
        raise ValueError(f"no sentiment is known of {', '.join(unknown)}")
    return tuple(sentiment for sentiment in found if sentiment)
