"""Numbers as analyses print them."""

import math
from collections.abc import Iterable

from experiments.tables import NOTHING
from jmer.evaluation.metrics import mean_and_deviation


def number(values: Iterable[float], decimals: int = 3) -> str:
    """Returns mean ± sample deviation of those values that are there; a single one has no deviation."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return NOTHING
    mean, deviation = mean_and_deviation(values)
    return f"{mean:,.{decimals}f}" + ("" if math.isnan(deviation) else f" ± {deviation:,.{decimals}f}")
