"""Declarations of tables and figures of papers."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from jmer.data.corpus import Card
from jmer.data.emotions import IEMOCAP4, IEMOCAP6, MELD

TASKS = {"iemocap4": IEMOCAP4, "iemocap6": IEMOCAP6, "meld": MELD}
"""Tasks for which the papers print numbers -> their emotions."""


class Printed(NamedTuple):
    """The printed numbers of one row on one task, in percent; None and missing emotions = not printed.

    Attributes:
      accuracy, weighted_f1: over all emotions.
      classes: emotion -> F1.
    """

    accuracy: float | None = None
    weighted_f1: float | None = None
    classes: Mapping[str, float] = {}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
      title: the paper's name for the row.
      model: name in `experiments.grid.models.MODELS`; None = jmer does not have the model.
      variant: of the model's experiment; empty = none.
      printed: task -> the paper's numbers, on the test split.
      absent: why jmer does not have the model; empty = it does.
    """

    title: str
    model: str | None
    variant: str = ""
    printed: Mapping[str, Printed] = dataclasses.field(default_factory=dict)
    absent: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or figure of a paper.

    Attributes:
      source: its number in the paper, and its subject.
      base: title of the entry that the others are compared with.
      entries: its rows.
      corpora: the default corpora.
      classes: whether the F1 of every emotion is a column.
      figures: names in `experiments.papers.figures.FIGURES`.
    """

    source: str
    base: str
    entries: tuple[Entry, ...]
    corpora: tuple[str, ...]
    classes: bool = False
    figures: tuple[str, ...] = ()


NO_EQUATIONS = "its equations are not public"
"""Why jmer does not have several models of the papers' tables."""


def task_of(card: Card) -> str | None:
    """Returns the task that has the emotions of a corpus, None if no paper has it."""
    return next((task for task, emotions in TASKS.items() if set(emotions) == set(card.emotions)), None)


def scores(**by_task: tuple[float | None, float | None]) -> dict[str, Printed]:
    """Returns printed numbers given as task=(accuracy, weighted F1)."""
    return {task: Printed(*values) for task, values in by_task.items()}


def with_classes(task: str, values: tuple[float | None, ...], total: tuple[float | None, float | None]) -> Printed:
    """Returns printed numbers given as F1 per emotion, in the order of `TASKS`, and (accuracy, weighted F1)."""
    named = zip(TASKS[task], values, strict=True)
    return Printed(*total, {emotion: value for emotion, value in named if value is not None})
