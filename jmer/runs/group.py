"""Runs that differ by their seed alone: the runs, their summary and their ensemble."""

import abc
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from ml_collections import ConfigDict

from jmer.data.corpus import Card, Corpus
from jmer.data.identity import difference
from jmer.errors import UserError
from jmer.evaluation.metrics import Scores
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.predictor import EnsemblePredictor
from jmer.evaluation.report import REPORT_FILE
from jmer.evaluation.seed_report import seed_report, seed_table
from jmer.evaluation.table_scores import scores_of_tables
from jmer.files import atomically
from jmer.runs.predictions import read_split
from jmer.runs.resume import CIRCUMSTANCES, check_same
from jmer.runs.run import Predicting, Run


@dataclasses.dataclass(frozen=True)
class Ensemble(Predicting):
    """The ensemble of several runs: it predicts with the mean of their probabilities.

    Attributes:
      runs: its members.
    """

    runs: tuple[Run, ...]

    @property
    def config(self) -> ConfigDict:
        """The configuration of the first member."""
        return self.runs[0].config

    @property
    def card(self) -> Card:
        """The training corpus' card."""
        return self.runs[0].card

    def training_corpus(self) -> Corpus:
        """Loads the training corpus; see `Run.training_corpus`."""
        return self.runs[0].training_corpus()

    @functools.cached_property
    def predictor(self) -> EnsemblePredictor:
        """The members' predictors as one."""
        return EnsemblePredictor(tuple(run.predictor for run in self.runs))

    @property
    def scores(self) -> dict[str, Scores]:
        """Split -> scores on the training corpus, of the predictions that the members have written.

        Raises:
          UserError: if predictions are missing, or not of the same utterances.
        """
        emotions, names = self.runs[0].card.emotions, list(self.runs[0].scores)
        scores = {}
        for split in names:
            tables = [read_split(run.folder, split) for run in self.runs]
            keys = [list(zip(table["conversation"], table["utterance"], strict=True)) for table in tables]
            if any(key != keys[0] for key in keys):
                raise UserError(f"the runs have predicted different utterances of split '{split}': evaluate them again")
            majority = self.runs[0].scores[split].majority_emotion
            scores[split] = scores_of_tables(tables, emotions, majority, self.config.attributes.margin)
        return scores


class Summarized(abc.ABC):
    """Several runs with a report of their own."""

    folder: Path | None

    @abc.abstractmethod
    def report(self) -> str:
        """Returns a report in Markdown."""

    def write_report(self, folder: Path | None = None) -> Path:
        """Writes the report and returns its path.

        Args:
          folder: where to; None = the directory of the runs.

        Raises:
          UserError: if the runs lie in several directories and `folder` is None, or one was not evaluated.
        """
        folder = folder or self.folder
        if folder is None:
            raise UserError("the runs lie in several directories: print report() instead")
        path = folder / REPORT_FILE
        with atomically(path) as temporary:
            temporary.write_text(self.report() + "\n", encoding="utf-8")
        return path


@dataclasses.dataclass(frozen=True)
class RunGroup(Summarized):
    """Runs that differ by their seed alone.

    Attributes:
      folder: the directory that holds theirs; None = they lie in several places.
      runs: in the order of their seeds.
    """

    folder: Path | None
    runs: tuple[Run, ...]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def ensemble(self) -> Ensemble:
        """What predicts with the mean of the runs' probabilities."""
        return Ensemble(self.runs)

    def summary(self) -> pd.DataFrame:
        """Returns the scores on the training corpus as fractions.

        Returns:
          A row per `(split, score)`, the index; columns `mean`, `sd` (sample standard deviation), `ensemble`, and
          `seed_<n>` for each run.

        Raises:
          UserError: if a run was not evaluated.
        """
        return seed_table({run.seed: run.scores for run in self.runs}, self.ensemble.scores)

    def report(self) -> str:
        """Returns the summary as a report in Markdown. Raises UserError if a run was not evaluated."""
        first = self.runs[0]
        return seed_report(
            {run.seed: run.scores for run in self.runs},
            self.ensemble.scores,
            title=f"{first.config.model.name.upper()} on {corpus_title(first.card)}",
            selection=first.selection,
            epochs={run.seed: run.epoch for run in self.runs},
            synthetic=first.card.synthetic,
            stopped={run.seed: run.epochs for run in self.runs if run.stopped},
        )


def group_runs(runs: Sequence[Run], folder: Path | None = None) -> RunGroup:
    """Groups runs of one configuration.

    Args:
      runs: at least one.
      folder: the directory that holds theirs, if it is one.

    Raises:
      UserError: if configurations differ by more than the seed, two seeds are the same, or the corpora differ.
    """
    for run in runs:
        first, modalities, attributes = runs[0], run.config.model.modalities, run.config.attributes.names
        # Of another corpus, what a configuration is filled in with differs too.
        if found := difference(first.facts.corpus, run.facts.corpus, modalities, attributes):
            raise UserError(
                f"{run.folder} was trained on another version of corpus '{run.card.name}' than {first.folder}: "
                f"{found}; leave it out"
            )
        check_same(run.folder, run.config, first.config, ignore=("seed", *CIRCUMSTANCES))
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds {', '.join(map(str, seeds))} are not all different: name each run once")
    return RunGroup(folder, tuple(runs))
