"""Searches hyperparameters with the same effort for every model: learning rate and rate of dropout.

    python -m experiments.tuning --corpus corpora/iemocap6 --models dialoguernn,mmgcn --seeds 2 --vectorize 6
    python -m experiments.tuning --corpus corpora/iemocap6 --learning-rates 1e-4,1e-3 --dropout-rates 0.1,0.3,0.5

Every combination is a row: the experiment with `--variant`, `optimizer.learning_rate` and `model.dropout_rate`. All
scores are those of the validation split. The best of each model is named with the fields that give it. The table is
printed and written to OUT/table.md and OUT/table.csv; each run is a folder
OUT/<corpus>/<model>-lr<rate>-dropout<rate>/seed<n>. The same command again resumes, and a command with more models,
seeds or values adds to what is there.
"""

import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from experiments import tables
from experiments.grid import cli
from experiments.grid.cells import Outcome, Row, failure_lines, selection_rule
from experiments.grid.corpora import training_corpus
from experiments.grid.executor import run_grid
from experiments.grid.models import MODELS, choose_models, model_row, row_name
from jmer.cli.flags import FIELD
from jmer.errors import UserError
from jmer.evaluation.predictions import corpus_title

PROGRAM = "experiments.tuning"
LEARNING_RATES, DROPOUT_RATES = "3e-4,1e-3,3e-3", "0.2,0.5"


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A model with one combination of hyperparameters on a corpus.

    Attributes:
      model: as it was named.
      changes: `section.field` -> text: the hyperparameters of this trial.
      row: of the grid.
    """

    model: str
    changes: Mapping[str, str]
    row: Row


def trials(
    model: str,
    corpus: str,
    *,
    variant: str,
    changes: Mapping[str, str],
    learning_rates: Sequence[str],
    dropout_rates: Sequence[str],
) -> list[Trial]:
    """Returns a model's trials on a corpus.

    Args:
      model: name in `experiments.grid.models.MODELS`, or what `jmer.get_config` takes.
      corpus: what `--corpus` takes.
      variant: of the experiment.
      changes: `section.field` -> text, for all trials.
      learning_rates, dropout_rates: texts of numbers. A model without the latter has one trial for each of the former.

    Raises:
      UserError: if the corpus, the experiment, the variant or a change is invalid.
    """
    plain = model_row(model, corpus, name=row_name(model), variant=variant, changes=changes)
    drops, found = "dropout_rate" in plain.config.model, []
    for learning_rate, dropout in itertools.product(learning_rates, dropout_rates if drops else [""]):
        own = {"optimizer.learning_rate": learning_rate} | ({"model.dropout_rate": dropout} if drops else {})
        name = f"{plain.name}-lr{learning_rate}" + (f"-dropout{dropout}" if drops else "")
        found.append(Trial(model, own, dataclasses.replace(plain, name=name, overrides={**plain.overrides, **own})))
    return found


def best_trials(found: Sequence[Trial], outcomes: Mapping[Row, Outcome]) -> dict[tuple[str, str], Trial]:
    """Returns (corpus, model) -> the trial with the highest mean weighted F1, the first of equals."""
    best: dict[tuple[str, str], tuple[float, Trial]] = {}
    for trial in found:
        scores = outcomes[trial.row].scores("weighted_f1")
        key = (trial.row.corpus, trial.model)
        if scores and (key not in best or fmean(scores.values()) > best[key][0]):
            best[key] = (fmean(scores.values()), trial)
    return {key: trial for key, (_, trial) in best.items()}


def report(found: Sequence[Trial], outcomes: Mapping[Row, Outcome]) -> tuple[str, list[dict[str, object]]]:
    """Returns the text of the search, and its rows with unrounded values. Raises UserError if no run succeeded."""
    best, shown, values = best_trials(found, outcomes), [], []
    for trial in found:
        outcome, card = outcomes[trial.row], training_corpus(trial.row.corpus).card
        scores = outcome.scores("weighted_f1")
        last = [result.last_epochs for result in outcome.results.values()]
        chosen = best.get((trial.row.corpus, trial.model)) is trial
        shown.append(
            {
                "corpus": corpus_title(card),
                "model": trial.model,
                "changes": ", ".join(f"{name}={value}" for name, value in trial.changes.items()),
                "W-F1 %": tables.percent(scores.values()),
                "W-F1 %, last 5 epochs": tables.percent(last),
                "n": str(len(scores)),
                "best": "best" if chosen else "",
            }
        )
        values.append(
            {
                "corpus": trial.row.corpus,
                "model": trial.model,
                **trial.changes,
                "seeds": len(scores),
                **tables.mean_and_sd("weighted_f1", scores.values()),
                **tables.mean_and_sd("weighted_f1_last_epochs", last),
                "best": chosen,
            }
        )
    ran = list(outcomes.values())
    text = [
        "# Search for hyperparameters",
        *tables.banner(any(training_corpus(trial.row.corpus).card.synthetic for trial in found)),
        "Weighted F1 on the VALIDATION split, mean ± sample standard deviation over n seeds. The epoch of a run was "
        f"{selection_rule(ran)}. The best of a row's trials was selected by that score, which is optimistic for it.",
        tables.markdown(shown),
        *tables.bullets("Best:", [_command(trial) for trial in best.values()]),
        *tables.bullets("Failed runs:", failure_lines(ran)),
    ]
    return "\n\n".join(text), values


def _command(trial: Trial) -> str:
    fields = " ".join(f"{FIELD}{name}={value}" for name, value in trial.row.overrides.items())
    return f"{training_corpus(trial.row.corpus).card.name}: --config {trial.row.experiment} {fields}"


def main(arguments: Sequence[str]) -> int:
    """Trains the runs of the search and prints its table; returns the exit status."""
    parser = cli.make_parser(PROGRAM, __doc__, seeds=2, corpora=())
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"), help="default: runs/tuning")
    parser.add_argument("--models", default=",".join(MODELS), metavar="MODEL,...", help="default: all")
    parser.add_argument("--learning-rates", default=LEARNING_RATES, help=f"default: {LEARNING_RATES}")
    parser.add_argument("--dropout-rates", default=DROPOUT_RATES, help=f"default: {DROPOUT_RATES}")
    options, changes = cli.parse(parser, arguments)
    found = [
        trial
        for corpus in options.corpora
        for model in choose_models("--models", options.models)
        for trial in trials(
            model,
            corpus,
            variant=options.variant,
            changes=changes,
            learning_rates=_numbers("--learning-rates", options.learning_rates),
            dropout_rates=_numbers("--dropout-rates", options.dropout_rates),
        )
    ]
    rows = [trial.row for trial in found]
    parallel = {"jobs": options.jobs, "vectorize": options.vectorize}
    outcomes = run_grid(rows, range(options.seeds), options.out, **parallel, log=cli.log)
    text, values = report(found, dict(zip(rows, outcomes, strict=True)))
    tables.write(options.out, text, values)
    return cli.print_report(text, outcomes, options.out)


def _numbers(flag: str, text: str) -> list[str]:
    """Splits numbers separated by commas. Raises UserError for something else."""
    words = list(dict.fromkeys(text.split(",")))
    for word in words:
        try:
            float(word)
        except ValueError as error:
            raise UserError(f"{flag} has '{word}': give numbers separated by commas") from error
    return words


if __name__ == "__main__":
    sys.exit(cli.launch(PROGRAM, main, sys.argv[1:]))
