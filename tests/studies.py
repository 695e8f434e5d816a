"""What tests of studies have in common."""

import itertools
import math

import numpy as np


def table_of(lines):
    """Returns the rows of the first Markdown table as column -> text."""
    begun = itertools.dropwhile(lambda line: not line.startswith("|"), lines)
    table = itertools.takewhile(lambda line: line.startswith("|"), begun)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def by_hand(values):
    values = 100 * np.array(values)
    return f"{values.mean():.2f} ± {math.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1)):.2f}"
