"""Compares interpretations of what a model's paper leaves open, one factor at a time around the default.

    python -m experiments.interpretations lpgnet --corpus corpora/iemocap6 --seeds 5 --jobs 2
    python -m experiments.interpretations lfvd --corpus corpora/mosi --only d_z,weighting

All scores are those of the validation split. Each row is compared with the default over the same seeds. The table is
printed and written to OUT/table.md and OUT/table.csv; each run is a folder OUT/<corpus>/<factor>=<value>/seed<n>. The
same command again resumes, and a command with more seeds or factors adds to what is there.
"""

import dataclasses
import itertools
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments import tables
from experiments.grid import cli
from experiments.grid.cells import Outcome, Row, failure_lines, selection_rule
from experiments.grid.corpora import training_corpus
from experiments.grid.executor import run_grid
from experiments.grid.models import model_row
from experiments.interpretations.factors import FACTORS
from jmer.config import flatten
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.significance import ALPHA, PairedComparison, compare_paired, holm, verdict

PROGRAM = "experiments.interpretations"
DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A value of a factor on a corpus.

    Attributes:
      factor, value: names.
      row: of the grid; several settings can share one, such as the default.
      against: the row that it is compared with; its own = it is the default.
    """

    factor: str
    value: str
    row: Row
    against: Row


def settings(
    model: str, corpus: str, *, variant: str, changes: Mapping[str, str], only: str | None = None
) -> list[Setting]:
    """Returns a model's settings on a corpus, grouped by factor.

    Args:
      model: name in `FACTORS`.
      corpus: what `--corpus` takes.
      variant: of the model's experiment.
      changes: `section.field` -> text, for the default and thus for every row.
      only: factors, separated by commas; None = all.

    Raises:
      UserError: if the corpus, the variant, a change or a factor is invalid.
    """
    default = model_row(model, corpus, name=DEFAULT, variant=variant, changes=changes)
    config = default.config
    factors, found = FACTORS[model](config), []
    for factor in cli.choices("--only", only, factors) if only is not None else factors:
        rows = {"": default}
        for value in factors[factor]:
            name = f"{factor}={re.sub(r'[^A-Za-z0-9_]+', '_', value.label)}"
            row = dataclasses.replace(default, name=name, overrides={**default.overrides, **value.overrides})
            rows[value.label] = default if flatten(row.config) == flatten(config) else row
            found.append(Setting(factor, value.label, rows[value.label], rows[value.against]))
    return found


def compare(
    found: Sequence[Setting], outcomes: Mapping[Row, Outcome]
) -> Iterator[tuple[Setting, PairedComparison | None, float]]:
    """Compares each setting with its reference by validation weighted F1 over the same seeds.

    Args:
      found: grouped by factor.
      outcomes: of all rows.

    Yields:
      A setting; its comparison, None for the default; and the p of the paired t-test after Holm's correction over the
      values of the factor on the corpus, NaN where there was no test.
    """
    for _, group in itertools.groupby(found, key=lambda setting: (setting.row.corpus, setting.factor)):
        factor = list(group)
        comparisons = [
            None
            if setting.row is setting.against
            else compare_paired(*(outcomes[row].scores("weighted_f1") for row in (setting.row, setting.against)))
            for setting in factor
        ]
        p_values = holm([math.nan if comparison is None else comparison.t_p for comparison in comparisons])
        yield from zip(factor, comparisons, p_values, strict=True)


def report(
    model: str, found: Sequence[Setting], outcomes: Mapping[Row, Outcome]
) -> tuple[str, list[dict[str, object]]]:
    """Returns the text of the study, and its rows with unrounded values. Raises UserError if no run succeeded."""
    shown, values = [], []
    for setting, comparison, p in compare(found, outcomes):
        outcome, card = outcomes[setting.row], training_corpus(setting.row.corpus).card
        scores = outcome.scores("weighted_f1")
        last_epochs = [result.last_epochs for result in outcome.results.values()]
        against, differences, judgement = "", (), DEFAULT
        if comparison is not None:
            against, differences = setting.against.name, comparison.differences
            judgement = verdict(p, comparison.mean)
        named = {"factor": setting.factor, "value": setting.value}
        shown.append(
            {
                "corpus": corpus_title(card),
                **named,
                "W-F1 %": tables.percent(scores.values()),
                "n": str(len(scores)),
                "W-F1 %, last 5 epochs": tables.percent(last_epochs),
                "compared with": against,
                "difference": tables.percent(differences),
                "p": tables.statistic(p),
                "verdict": judgement,
            }
        )
        values.append(
            {
                "corpus": setting.row.corpus,
                **named,
                "run": setting.row.name,
                "seeds": len(scores),
                **tables.mean_and_sd("weighted_f1", scores.values()),
                **tables.mean_and_sd("weighted_f1_last_epochs", last_epochs),
                "compared_with": against,
                "pairs": len(differences),
                **tables.mean_and_sd("difference", differences),
                "p": "" if math.isnan(p) else p,
                "verdict": judgement,
            }
        )
    ran = list(outcomes.values())
    text = [
        f"# Interpretations of {model.upper()}",
        *tables.banner(any(training_corpus(setting.row.corpus).card.synthetic for setting in found)),
        "Weighted F1 on the VALIDATION split, mean ± sample standard deviation over n seeds. The epoch of a run was "
        f"{selection_rule(ran)}; the mean over the last five epochs selects nothing. Differences are over the same "
        "seeds, in percentage points. p: paired t-test over the seeds, two-sided, with Holm's correction over the "
        f"values of the factor; below {ALPHA} the value is better or worse than what it is compared with.",
        tables.markdown(shown),
        *tables.bullets("Failed runs:", failure_lines(ran)),
    ]
    return "\n\n".join(text), values


def main(arguments: Sequence[str]) -> int:
    """Trains the runs of the study and prints its table; returns the exit status."""
    parser = cli.make_parser(PROGRAM, __doc__, seeds=3, corpora=())
    parser.add_argument("model", choices=FACTORS)
    parser.add_argument("--out", type=Path, help="default: runs/interpretations/MODEL")
    parser.add_argument("--only", metavar="FACTOR,...", help="factors to compare (default: all)")
    options, changes = cli.parse(parser, arguments)
    out = options.out or Path("runs/interpretations") / options.model
    found = [
        setting
        for corpus in options.corpora
        for setting in settings(options.model, corpus, variant=options.variant, changes=changes, only=options.only)
    ]
    rows = list(dict.fromkeys(row for setting in found for row in (setting.against, setting.row)))
    parallel = {"jobs": options.jobs, "vectorize": options.vectorize}
    outcomes = run_grid(rows, range(options.seeds), out, **parallel, log=cli.log)
    text, values = report(options.model, found, dict(zip(rows, outcomes, strict=True)))
    tables.write(out, text, values)
    return cli.print_report(text, outcomes, out)


if __name__ == "__main__":
    sys.exit(cli.launch(PROGRAM, main, sys.argv[1:]))
