"""A table on one corpus, after its runs."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.grid.cells import Outcome, Row, run_folder
from experiments.grid.corpora import corpus_name, training_corpus
from experiments.papers.declaration import Table, task_of
from experiments.papers.planning import Line
from jmer.data.corpus import Card
from jmer.evaluation import confusion_matrix
from jmer.evaluation.predictions import corpus_title
from jmer.runs.predictions import read_split


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A table's lines on a corpus, and the outcomes of their runs.

    Attributes:
      table: the declaration.
      name: of the table.
      corpus: what `--corpus` takes.
      lines: one per entry.
      outcomes: of the lines' rows, and possibly of other rows.
      runs: parent of the runs' folders.
      split: the split whose scores are shown.
    """

    table: Table
    name: str
    corpus: str
    lines: Sequence[Line]
    outcomes: Mapping[Row, Outcome]
    runs: Path
    split: str

    @property
    def card(self) -> Card:
        """The corpus' card."""
        return training_corpus(self.corpus).card

    @property
    def corpus_name(self) -> str:
        """The corpus' name in file names."""
        return corpus_name(self.corpus)

    @property
    def task(self) -> str | None:
        """The papers' task that the corpus' emotions belong to, if any."""
        return task_of(self.card)

    @property
    def emotions(self) -> tuple[str, ...]:
        """Names of the emotions, in the order of the labels."""
        return self.card.emotions

    @property
    def heading(self) -> str:
        """The title of the study's figures."""
        return f"{self.table.source.partition(' (')[0]}\n{corpus_title(self.card)}"

    @property
    def finished(self) -> list[tuple[Line, Outcome]]:
        """The lines that have results, with their outcomes."""
        ran = ((line, self.outcomes[line.row]) for line in self.lines if line.row is not None)
        return [(line, outcome) for line, outcome in ran if outcome.results]

    def scores(self, name: str) -> dict[str, list[float]]:
        """Returns title -> the score of every seed, fractions."""
        return {line.entry.title: [*outcome.scores(name, self.split).values()] for line, outcome in self.finished}

    @functools.cache  # noqa: B019 (studies live as long as the program)
    def predictions(self) -> dict[str, dict[int, pd.DataFrame]]:
        """Returns title -> seed -> the run's table of predictions for the split.

        Raises:
          UserError: if a run's predictions are missing.
        """
        return {
            line.entry.title: {seed: self._read(line.row, seed) for seed in outcome.results}
            for line, outcome in self.finished
        }

    def confusion(self, table: pd.DataFrame) -> np.ndarray:
        """Returns the confusion matrix `[C, C]` of the labelled utterances in a table of predictions, rows gold."""
        labelled = table[table["gold"] != ""]
        gold, predicted = (labelled[name].map(self.emotions.index).to_numpy() for name in ("gold", "predicted"))
        return confusion_matrix(gold, predicted, len(self.emotions))

    def _read(self, row: Row, seed: int) -> pd.DataFrame:
        return read_split(run_folder(self.runs, row, seed), self.split)
