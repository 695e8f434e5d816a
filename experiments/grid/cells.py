"""Rows and cells of a grid, and the results of their runs."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.grid.corpora import corpus_name
from jmer.errors import UserError
from jmer.experiment import get_config
from jmer.main import FIELD
from jmer.selection import get_selection
from jmer.training.folder import SCORES_FILE, read_facts, read_json
from jmer.training.log import JSON_LINES_FILE, read_json_lines

LAST_EPOCHS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A configuration on a corpus, trained once per seed.

    Attributes:
      name: unique among the rows of a corpus; the name of a folder.
      experiment: what `--config` takes, `configs/x.py:variants`.
      corpus: what `--corpus` takes.
      overrides: `section.field` -> text, as in `--config.section.field=text`.
    """

    name: str
    experiment: str
    corpus: str
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> ConfigDict:
        """The configuration with seed 0. Raises UserError if the experiment or an override is invalid."""
        return get_config(self.experiment, {**self.overrides, "data.path": self.corpus})


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
    def arguments(self) -> list[str]:
        """The arguments of `jmer.main` that train the same run."""
        fields = {**self.row.overrides, "seed": self.seed}
        return [
            *("--config", self.row.experiment, "--corpus", self.row.corpus, "--workdir", str(self.folder)),
            *(f"{FIELD}{name}={value}" for name, value in fields.items()),
        ]


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a finished run.

    Attributes:
      scores: split -> what `scores.json` has for it, fractions.
      selection: the rule that selected the epoch.
      epoch: the selected epoch, of `epochs`.
      last_epochs: mean weighted F1 on the validation split over the last five epochs; selects nothing.
      parameters: number of trained parameters.
      utterances_per_second: in training, the median over epochs (the first one compiles).
      devices: the devices of training.
    """

    scores: Mapping[str, Mapping[str, Any]]
    selection: str
    epoch: int
    epochs: int
    last_epochs: float
    parameters: int
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


def read_result(folder: Path) -> Result:
    """Reads the result of a finished run. Raises UserError if one of its files is missing or damaged."""
    chosen, facts = read_json(folder / SCORES_FILE), read_facts(folder)
    history = read_json_lines(folder / JSON_LINES_FILE)
    return Result(
        scores=chosen["splits"],
        selection=chosen["selection"],
        epoch=chosen["epoch"],
        epochs=chosen["epochs"],
        last_epochs=statistics.fmean(row["validation/weighted_f1"] for row in history[-LAST_EPOCHS:]),
        parameters=facts.parameters,
        utterances_per_second=statistics.median(row["utterances_per_second"] for row in history),
        devices=facts.versions["devices"],
    )


def selection_rule(outcomes: Sequence[Outcome]) -> str:
    """Describes the rule that selected the epochs. Raises UserError if no run succeeded."""
    results = [result for outcome in outcomes for result in outcome.results.values()]
    if not results:
        reasons = [reason for outcome in outcomes for reason in outcome.failures.values()]
        raise UserError(f"no run succeeded: {reasons[0]}")
    return " / ".join(sorted({get_selection(result.selection).description for result in results}))


def failure_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns one line for each failed run, with the reason."""
    return [
        f"{outcome.row.corpus}, {outcome.row.name}, seed {seed}: {reason}"
        for outcome in outcomes
        for seed, reason in outcome.failures.items()
    ]
