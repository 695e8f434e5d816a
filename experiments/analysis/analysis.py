"""The parts of an analysis."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from experiments.analysis.subjects import Subject


def always(subject: Subject) -> str:
    """The `applies` of an analysis that is possible for any model."""
    return ""


@dataclasses.dataclass(frozen=True)
class Analysis:
    """An analysis of runs that differ only in their seed.

    Attributes:
      title: heading.
      measure: `measure(subjects, split)` returns a tidy table of numbers whose first column is `seed`.
      draw: `draw(frame, path, title)` draws that table; the suffix of `path` gives the format.
      describe: `describe(frame)` returns Markdown paragraphs that summarise the table.
      applies: `applies(subject)` returns why the analysis is impossible for such runs; empty = it is possible.
    """

    title: str
    measure: Callable[[Sequence[Subject], str], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Path, str], None]
    describe: Callable[[pd.DataFrame], list[str]]
    applies: Callable[[Subject], str] = always
