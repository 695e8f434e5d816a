"""What a declaration of a paper's table or figure consists of."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from jmer.data.corpus import Card
from jmer.data.emotions import IEMOCAP4, IEMOCAP6, MELD

TASKS = {"iemocap4": IEMOCAP4, "iemocap6": IEMOCAP6, "meld": MELD}
"""Tasks that the papers print numbers for -> their emotions."""


class Printed(NamedTuple):
    """What a paper prints for one row on one task, in percent; None and missing emotions = not printed.

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
      title: as the paper calls it.
      model: name in `experiments.models.MODELS`; None = the paper prints it, and jmer does not have it.
      variant: of the model's experiment; empty = as it is.
      printed: task -> the paper's numbers, of the test split.
    """

    title: str
    model: str | None
    variant: str = ""
    printed: Mapping[str, Printed] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or figure of a paper.

    Attributes:
      source: where it stands, and what it shows.
      base: title of the entry that the others are compared with.
      entries: its rows.
      corpora: what it is made on if no other is named.
      classes: whether F1 of every emotion is a column.
      figures: what is drawn of it: names in `experiments.papers.figures.FIGURES`.
    """

    source: str
    base: str
    entries: tuple[Entry, ...]
    corpora: tuple[str, ...]
    classes: bool = False
    figures: tuple[str, ...] = ()


def task_of(card: Card) -> str | None:
    """Returns the task that a corpus' emotions are those of, None if no paper has it."""
    return next((task for task, emotions in TASKS.items() if set(emotions) == set(card.emotions)), None)


def scores(**by_task: tuple[float | None, float | None]) -> dict[str, Printed]:
    """Returns what is printed as task -> (accuracy, weighted F1)."""
    return {task: Printed(*values) for task, values in by_task.items()}


def with_classes(task: str, values: tuple[float | None, ...], total: tuple[float | None, float | None]) -> Printed:
    """Returns what is printed as F1 per emotion, in the order of `TASKS`, and (accuracy, weighted F1)."""
    named = zip(TASKS[task], values, strict=True)
    return Printed(*total, {emotion: value for emotion, value in named if value is not None})
