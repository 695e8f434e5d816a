"""Differences between two settings over the same seeds."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from jmer.evaluation import mean_and_deviation

BEYOND = "beyond the spread"
WITHIN = "not distinguishable"
FEWEST_PAIRS = 3


class Difference(NamedTuple):
    """How much two settings differ: seed by seed, and in a word."""

    values: tuple[float, ...]
    verdict: str


def compare(scores: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """Pairs two settings by seed.

    Args:
      scores: seed -> score of a setting.
      reference: seed -> score of what it is compared with.

    Returns:
      `scores - reference` for each seed of both. They are beyond the spread if there are three at least, and their mean
      exceeds both two of its standard errors and the deviation of `reference` over its seeds.
    """
    values = tuple(scores[seed] - reference[seed] for seed in sorted(scores.keys() & reference.keys()))
    if len(values) < FEWEST_PAIRS:
        return Difference(values, WITHIN)
    mean, deviation = mean_and_deviation(values)
    spread = mean_and_deviation(list(reference.values()))[1]
    beyond = abs(mean) > max(2 * deviation / math.sqrt(len(values)), spread)
    return Difference(values, BEYOND if beyond else WITHIN)
