"""The sound of one utterance, cut out of that of its recording, and whether features can be made of it."""

import math
from typing import NamedTuple

import numpy as np

from jmer.extract.media import Sound
from jmer.extract.protocol import RATE, Missing
from jmer.extract.tracks import TOLERANCE

SILENT = 1e-4
"""Sound is silent whose samples are all below it."""

CLIPPED = 0.99
"""Samples from here on are taken for clipped."""

CLIPPED_SHARE = 0.01
"""Share of clipped samples above which there is a warning."""


class Cut(NamedTuple):
    """The sound of an utterance.

    Attributes:
      samples: float32 `[S]`, a part of the recording's; or why features cannot be made of it.
      warning: what is to be said of it nevertheless; empty = nothing.
    """

    samples: np.ndarray | Missing
    warning: str = ""


def cut(sound: Sound, start: float, end: float, shortest: float) -> Cut:
    """Cuts an utterance out of the sound of its recording: `samples[round(start RATE):round(end RATE)]`.

    At most `TOLERANCE` seconds of it may be missing, be it at the end or inside.

    Args:
      sound: of the whole recording, see `jmer.extract.media.read_sound`.
      start: in seconds.
      end: in seconds; infinite = the recording's.
      shortest: seconds that an extractor needs.
    """
    came = len(sound.samples) / RATE
    if not came:
        return Cut(Missing(sound.defect or "the recording has no sound"))
    if end != math.inf and end > came + TOLERANCE:
        return Cut(Missing(f"the recording's sound ends at {came:.2f} s, before {end:.2f} s"))
    lost = [(max(start, first), min(end, last)) for first, last in sound.lost if first < end and last > start]
    seconds = sum(last - first for first, last in lost)
    if seconds > TOLERANCE:
        amount = "an unknown part" if seconds == math.inf else f"{seconds:.2f} s"
        return Cut(Missing(f"{amount} of its sound, at {lost[0][0]:.2f} s, is damaged or missing"))
    last = len(sound.samples) if end == math.inf else round(end * RATE)
    samples = sound.samples[round(start * RATE) : last]
    fault = _fault(samples, shortest)
    if fault:
        return Cut(Missing(fault))
    clipped = np.mean(np.abs(samples) >= CLIPPED)
    warnings = [f"{1000 * seconds:.0f} ms of its sound are missing"] if lost else []
    warnings += [f"{100 * clipped:.1f} % of its samples are clipped"] if clipped > CLIPPED_SHARE else []
    return Cut(samples, "; ".join(warnings))


def _fault(samples: np.ndarray, shortest: float) -> str:
    """Returns why no features can be made of samples, empty if they can."""
    if not len(samples) or len(samples) < round(shortest * RATE):
        return f"too short: {1000 * len(samples) / RATE:.0f} ms"
    bad = len(samples) - np.count_nonzero(np.isfinite(samples))
    if bad:
        return f"{bad} of its {len(samples)} samples are not numbers"
    if np.abs(samples).max() < SILENT:
        return "silent"
    return ""
