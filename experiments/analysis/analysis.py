"""What an analysis consists of."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from experiments.analysis.runs import Run


def always(run: Run) -> str:
    """The `applies` of an analysis that any model can have."""
    return ""


@dataclasses.dataclass(frozen=True)
class Analysis:
    """An analysis of runs that differ by their seed alone.

    Attributes:
      title: heading.
      measure: `measure(runs, split)` returns the figures in a tidy table whose first column is `seed`.
      draw: `draw(frame, path, title)` draws that table; the suffix of `path` gives the format.
      describe: `describe(frame)` says in Markdown paragraphs what the table shows.
      applies: `applies(run)` returns why the analysis cannot be made of such runs; empty = it can.
    """

    title: str
    measure: Callable[[Sequence[Run], str], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Path, str], None]
    describe: Callable[[pd.DataFrame], list[str]]
    applies: Callable[[Run], str] = always
