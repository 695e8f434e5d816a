"""What tests of studies have in common."""

import math

import numpy as np


def table_of(lines):
    """Returns a Markdown table's rows as column -> text."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def by_hand(values):
    values = 100 * np.array(values)
    return f"{values.mean():.2f} ± {math.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1)):.2f}"
