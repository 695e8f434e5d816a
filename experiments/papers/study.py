"""A table on one corpus, when its runs are finished."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.papers.declaration import Table, task_of
from experiments.papers.planning import Line
from experiments.runner import Outcome, Row, corpus_name, run_folder, sound_corpus
from jmer.data.corpus import Card
from jmer.errors import UserError
from jmer.evaluation import confusion_matrix
from jmer.evaluation.predictions import corpus_title
from jmer.training.folder import PREDICTION_FOLDER


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A table's lines on a corpus, and what became of them.

    Attributes:
      table: the declaration.
      name: of the table.
      corpus: as `--corpus` takes it.
      lines: one per entry.
      outcomes: of the lines' rows, perhaps of others, too.
      runs: parent of the runs' folders.
      split: whose scores are shown.
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
        return sound_corpus(self.corpus).card

    @property
    def corpus_name(self) -> str:
        """What files of this corpus are called by."""
        return corpus_name(self.corpus)

    @property
    def task(self) -> str | None:
        """Which of the papers' tasks this is, if any."""
        return task_of(self.card)

    @property
    def emotions(self) -> tuple[str, ...]:
        """Names of the emotions, in the order of the labels."""
        return self.card.emotions

    @property
    def heading(self) -> str:
        """Stands above figures."""
        return f"{self.table.source.partition(' (')[0]}\n{corpus_title(self.card)}"

    @property
    def finished(self) -> list[tuple[Line, Outcome]]:
        """The lines that have results, with them."""
        ran = ((line, self.outcomes[line.row]) for line in self.lines if line.row is not None)
        return [(line, outcome) for line, outcome in ran if outcome.results]

    def scores(self, name: str) -> dict[str, list[float]]:
        """Returns title -> a score of every seed, as fractions."""
        return {line.entry.title: [*outcome.scores(name, self.split).values()] for line, outcome in self.finished}

    @functools.cache  # noqa: B019 (a study lives as long as the program)
    def predictions(self) -> dict[str, dict[int, pd.DataFrame]]:
        """Returns title -> seed -> what `jmer.evaluation.prediction_table` gave for the split.

        Raises:
          UserError: if a run's predictions are missing.
        """
        return {
            line.entry.title: {seed: self._read(line.row, seed) for seed in outcome.results}
            for line, outcome in self.finished
        }

    def confusion(self, table: pd.DataFrame) -> np.ndarray:
        """Counts a table of predictions: `[C, C]`, rows gold; unlabelled utterances do not count."""
        labelled = table[table["gold"] != ""]
        gold, predicted = (labelled[name].map(self.emotions.index).to_numpy() for name in ("gold", "predicted"))
        return confusion_matrix(gold, predicted, len(self.emotions))

    def _read(self, row: Row, seed: int) -> pd.DataFrame:
        path = run_folder(self.runs, row, seed) / PREDICTION_FOLDER / f"{self.split}.csv"
        if not path.exists():
            raise UserError(f"{path} is missing: make it with --mode evaluate --workdir {path.parent.parent}")
        # A name such as "NA" is a name.
        return pd.read_csv(path, keep_default_na=False, dtype={"conversation": str, "utterance": str, "speaker": str})
