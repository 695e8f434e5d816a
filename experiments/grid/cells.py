"""Rows and cells of a grid, and the results of their runs."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

import jmer
from experiments.grid.corpora import corpus_name
from jmer.cli.flags import FIELD, command_line
from jmer.errors import UserError
from jmer.evaluation.metrics import Scores
from jmer.selection import Selection

LAST_EPOCHS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A configuration on a corpus, trained once per seed.

    Attributes:
      name: unique among the rows of a corpus; the name of a folder.
      experiment: what `jmer.get_config` takes: the name or path of an experiment, with variants after a colon.
      corpus: what `jmer.load_corpus` takes.
      overrides: `section.field` -> text, as in `--config.section.field=text`.
    """

    name: str
    experiment: str
    corpus: str
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> ConfigDict:
        """The configuration with seed 0. Raises UserError if the experiment or an override is invalid."""
        return jmer.get_config(self.experiment, {**self.overrides, "data.path": self.corpus})


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A row with one seed, and the folder of its run."""

    row: Row
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        """The cell's name in messages."""
        return f"{corpus_name(self.row.corpus)} {self.row.name} seed {self.seed}"

    @property
    def config(self) -> ConfigDict:
        """The configuration of the run. Raises UserError if the experiment or an override is invalid."""
        config = self.row.config
        config.seed = self.seed
        return config

    @property
    def command(self) -> str:
        """The command line that trains the same run."""
        fields = {**self.row.overrides, "seed": self.seed}
        return command_line(
            [
                *("--config", self.row.experiment, "--corpus", self.row.corpus, "--workdir", str(self.folder)),
                *(f"{FIELD}{name}={value}" for name, value in fields.items()),
            ]
        )


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a finished run.

    Attributes:
      scores: split -> scores at the selected epoch, fractions.
      selection: the rule that selected the epoch.
      epoch: the selected epoch, of `epochs`.
      last_epochs: mean weighted F1 on the validation split over the last five epochs; selects nothing.
      parameters: number of trained parameters.
      utterances_seen: in training, each as often as an epoch had it.
      utterances_per_second: in training, the median over epochs (the first one compiles).
      devices: the devices of training.
    """

    scores: Mapping[str, Scores]
    selection: Selection
    epoch: int
    epochs: int
    last_epochs: float
    parameters: int
    utterances_seen: int
    utterances_per_second: float
    devices: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results and failures of a row: seed -> result, and seed -> error message."""

    row: Row
    results: Mapping[int, Result]
    failures: Mapping[int, str]

    def scores(self, name: str, split: str = "validation") -> dict[int, float]:
        """Returns seed -> a score at the selected epoch on a split; empty if the split was not scored."""
        return {seed: r.scores[split][name] for seed, r in self.results.items() if split in r.scores}

    @property
    def speeds(self) -> list[float]:
        """The utterances per second in training of every seed."""
        return [result.utterances_per_second for result in self.results.values()]


def run_folder(out: Path, row: Row, seed: int) -> Path:
    """Returns the folder of a row's run under the folder of all runs."""
    return out / corpus_name(row.corpus) / row.name / f"seed{seed}"


def result_of(run: jmer.Run) -> Result:
    """Returns the result of a finished run. Raises UserError if one of its files is missing or damaged."""
    history = run.history
    return Result(
        scores=run.scores,
        selection=run.selection,
        epoch=run.epoch,
        epochs=run.epochs,
        last_epochs=statistics.fmean(metrics["validation/weighted_f1"] for metrics in history[-LAST_EPOCHS:]),
        parameters=run.parameters,
        utterances_seen=int(history[-1]["utterances_seen"] or 0),
        utterances_per_second=statistics.median(metrics["utterances_per_second"] for metrics in history),
        devices=run.versions["devices"],
    )


def selection_rule(outcomes: Sequence[Outcome]) -> str:
    """Describes the rule that selected the epochs. Raises UserError if no run succeeded."""
    results = [result for outcome in outcomes for result in outcome.results.values()]
    if not results:
        reasons = [reason for outcome in outcomes for reason in outcome.failures.values()]
        raise UserError(f"no run succeeded: {reasons[0]}")
    return " / ".join(sorted({result.selection.description for result in results}))


def failure_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns one line for each failed run, with the reason."""
    return [
        f"{outcome.row.corpus}, {outcome.row.name}, seed {seed}: {reason}"
        for outcome in outcomes
        for seed, reason in outcome.failures.items()
    ]
