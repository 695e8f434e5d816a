"""Compares models on corpora: scores over seeds, size and speed, beside a logistic regression over neighbours.

    python -m experiments.comparison --corpus corpora/iemocap4 --corpus corpora/iemocap6 --corpus corpora/mosi
    python -m experiments.comparison --models lfvd,sdt --seeds 3 --jobs 2 --config.training.epochs=3
    python -m experiments.comparison --models lfvd,path/to/mine.py         # an experiment with a model of your own

All scores are those of the validation split. The table is printed and written to OUT/table.md and OUT/table.csv; each
run is a folder OUT/<corpus>/<model>/seed<n>. The same command again resumes, and a command with more seeds or models
adds to what is there.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from sklearn.exceptions import ConvergenceWarning

from experiments import tables
from experiments.baselines.context_regression import regress
from experiments.grid import cli
from experiments.grid.cells import Outcome, Row, failure_lines, selection_rule
from experiments.grid.corpora import corpus_name, training_corpus
from experiments.grid.executor import run_grid
from experiments.grid.models import MODELS, choose_models, model_row, row_name
from jmer.config import fit_to_corpus
from jmer.errors import UserError
from jmer.evaluation.predictions import corpus_title
from jmer.runs.directory import read_json, write_json

PROGRAM = "experiments.comparison"
CORPORA = ("synthetic-iemocap4", "synthetic-iemocap6")
CONTEXTS = (0, 3)
UNUSABLE = "cannot use the corpus"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model on a corpus.

    Attributes:
      row: of the grid.
      modalities: inputs of the model.
      obstacle: why the model cannot use the corpus; empty = it can.
    """

    row: Row
    modalities: tuple[str, ...]
    obstacle: str = ""


@dataclasses.dataclass(frozen=True)
class Regression:
    """A logistic regression on a corpus: its scores on the validation split, or an error message."""

    corpus: str
    modalities: tuple[str, ...]
    context: int
    scores: Mapping[str, float]
    error: str = ""


def candidate(model: str, corpus: str, *, variant: str, changes: Mapping[str, str]) -> Candidate:
    """Returns a model on a corpus.

    Args:
      model: name in `experiments.grid.models.MODELS`, or what `jmer.get_config` takes.
      corpus: what `--corpus` takes.
      variant: of the experiment, besides those after its colon.
      changes: `section.field` -> text.

    Raises:
      UserError: if the corpus, the experiment, the variant or a change is invalid.
    """
    row = model_row(model, corpus, name=row_name(model), variant=variant, changes=changes)
    loaded, config = training_corpus(corpus), row.config
    try:
        return Candidate(row, tuple(fit_to_corpus(config, loaded.card, loaded.conversations("train")).model.modalities))
    except UserError as error:
        return Candidate(row, tuple(config.model.modalities), str(error))


def regressions(candidates: Sequence[Candidate], out: Path) -> Iterator[Regression]:
    """Yields the regressions on every set of modalities that a model uses, fitted or read from `out`."""
    wanted = dict.fromkeys(
        (candidate.row.corpus, candidate.modalities) for candidate in candidates if not candidate.obstacle
    )
    for path, modalities in wanted:
        for context in CONTEXTS:
            yield _regression(path, modalities, context, out)


def _regression(path: str, modalities: tuple[str, ...], context: int, out: Path) -> Regression:
    corpus = training_corpus(path)
    file = out / corpus_name(path) / "logistic_regression" / f"{'+'.join(modalities)}_context{context}.json"
    inputs = {"corpus": path, "card": dataclasses.asdict(corpus.card) | {"emotions": [*corpus.card.emotions]}}
    saved = read_json(file) if file.exists() else {}
    if {name: saved.get(name) for name in inputs} == inputs:
        return Regression(path, modalities, context, saved["scores"])
    try:
        scores = regress(corpus, modalities, context)._asdict()
    except (UserError, ConvergenceWarning) as error:
        return Regression(path, modalities, context, {}, " ".join(str(error).split()))
    write_json(file, inputs | {"scores": scores})
    return Regression(path, modalities, context, scores)


def report(
    candidates: Sequence[Candidate], outcomes: Mapping[Row, Outcome], baselines: Sequence[Regression]
) -> tuple[str, list[dict[str, object]]]:
    """Returns the text of the comparison, and its rows with unrounded values.

    Raises:
      UserError: if no run succeeded.
    """
    shown, values = [], []
    for corpus in dict.fromkeys(candidate.row.corpus for candidate in candidates):
        for candidate in (each for each in candidates if each.row.corpus == corpus):
            shown.append(_model_cells(candidate, outcomes.get(candidate.row)))
            values.append(_model_values(candidate, outcomes.get(candidate.row)))
        for regression in (each for each in baselines if each.corpus == corpus):
            shown.append(_regression_cells(regression))
            values.append(_regression_values(regression))
    ran = list(outcomes.values())
    devices = " / ".join(sorted({result.devices for outcome in ran for result in outcome.results.values()}))
    text = [
        "# Comparison of models",
        *tables.banner(any(training_corpus(candidate.row.corpus).card.synthetic for candidate in candidates)),
        "Scores of the VALIDATION split, mean ± sample standard deviation over seeds. The epoch of a run was "
        f"{selection_rule(ran)}, so its score is optimistic; the mean over the last five epochs selects nothing. "
        "Logistic regression is deterministic and has no seeds. Utterances/s: in training, median over epochs, mean "
        f"over seeds, on {devices}, which other runs may have used at the same time.",
        tables.markdown(shown),
        *tables.bullets("Left out:", _left_out(candidates, baselines)),
        *tables.bullets("Failed runs:", failure_lines(ran)),
    ]
    return "\n\n".join(text), values


def _left_out(candidates: Sequence[Candidate], baselines: Sequence[Regression]) -> list[str]:
    obstacles = [
        f"{candidate.row.corpus}, {candidate.row.name}: {candidate.obstacle}"
        for candidate in candidates
        if candidate.obstacle
    ]
    return obstacles + [f"{b.corpus}, logistic regression: {b.error}" for b in baselines if b.error]


def _model_cells(candidate: Candidate, outcome: Outcome | None) -> dict[str, str]:
    cells = _cells(
        candidate.row.corpus, candidate.row.name, UNUSABLE if candidate.obstacle else "+".join(candidate.modalities)
    )
    if outcome is None or not outcome.results:
        return cells | {"seeds": f"0 of {len(outcome.failures)}" if outcome else tables.NOTHING}
    results, total = outcome.results.values(), len(outcome.results) + len(outcome.failures)
    return cells | {
        "accuracy %": tables.percent(outcome.scores("accuracy").values()),
        "W-F1 %": tables.percent(outcome.scores("weighted_f1").values()),
        "W-F1 %, last 5 epochs": tables.percent(result.last_epochs for result in results),
        "parameters": f"{next(iter(results)).parameters:,}",
        "utterances/s": f"{fmean(outcome.speeds):.0f}",
        "seeds": str(total) if not outcome.failures else f"{len(results)} of {total}",
    }


def _regression_cells(regression: Regression) -> dict[str, str]:
    what = UNUSABLE if regression.error else "+".join(regression.modalities)
    cells = _cells(regression.corpus, f"logistic regression, context {regression.context}", what)
    if regression.error:
        return cells
    scores = regression.scores
    return cells | {
        "accuracy %": tables.percent([scores["accuracy"]]),
        "W-F1 %": tables.percent([scores["weighted_f1"]]),
    }


def _cells(corpus: str, model: str, modalities: str) -> dict[str, str]:
    head = {"corpus": corpus_title(training_corpus(corpus).card), "model": model, "modalities": modalities}
    columns = ("accuracy %", "W-F1 %", "W-F1 %, last 5 epochs", "parameters", "utterances/s", "seeds")
    return head | dict.fromkeys(columns, tables.NOTHING)


def _model_values(candidate: Candidate, outcome: Outcome | None) -> dict[str, object]:
    results = outcome.results if outcome else {}
    values = {
        "corpus": candidate.row.corpus,
        "model": candidate.row.name,
        "modalities": "+".join(candidate.modalities),
        "note": candidate.obstacle or "; ".join(dict.fromkeys(outcome.failures.values())),
        "seeds": len(results),
    }
    for split in ("validation", "test"):
        for name in ("accuracy", "weighted_f1"):
            scores = outcome.scores(name, split) if outcome else {}
            values |= tables.mean_and_sd(f"{split}_{name}", scores.values())
    last_epochs = [result.last_epochs for result in results.values()]
    values |= tables.mean_and_sd("validation_weighted_f1_last_epochs", last_epochs)
    values["parameters"] = next((result.parameters for result in results.values()), "")
    return values | tables.mean_and_sd("utterances_per_second", outcome.speeds if outcome else ())


def _regression_values(regression: Regression) -> dict[str, object]:
    return {
        "corpus": regression.corpus,
        "model": f"logistic_regression_context{regression.context}",
        "modalities": "+".join(regression.modalities),
        "note": regression.error,
        "validation_accuracy_mean": regression.scores.get("accuracy", ""),
        "validation_weighted_f1_mean": regression.scores.get("weighted_f1", ""),
    }


def main(arguments: Sequence[str]) -> int:
    """Trains the runs of the comparison and prints its table; returns the exit status."""
    parser = cli.make_parser(PROGRAM, __doc__, seeds=5, corpora=CORPORA)
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"), help="default: runs/comparison")
    parser.add_argument(
        "--models",
        default=",".join(MODELS),
        metavar="MODEL,...",
        help=f"names, or paths of experiment files such as mine.py:variant (default: {','.join(MODELS)})",
    )
    options, changes = cli.parse(parser, arguments)
    models = choose_models("--models", options.models)
    candidates = [
        candidate(model, corpus, variant=options.variant if model in MODELS else "", changes=changes)
        for corpus in options.corpora
        for model in models
    ]
    rows = [candidate.row for candidate in candidates if not candidate.obstacle]
    if not rows:
        raise UserError(f"no model can use the corpus: {candidates[0].obstacle}")
    baselines = []
    for regression in regressions(candidates, options.out):
        score = regression.error or f"validation W-F1 {tables.percent([regression.scores['weighted_f1']])} %"
        which = f"{'+'.join(regression.modalities)} with context {regression.context}"
        cli.log(f"{corpus_name(regression.corpus)} logistic regression on {which}: {score}")
        baselines.append(regression)
    parallel = {"jobs": options.jobs, "vectorize": options.vectorize}
    outcomes = run_grid(rows, range(options.seeds), options.out, **parallel, log=cli.log)
    text, values = report(candidates, dict(zip(rows, outcomes, strict=True)), baselines)
    tables.write(options.out, text, values)
    return cli.print_report(text, outcomes, options.out)


if __name__ == "__main__":
    sys.exit(cli.launch(PROGRAM, main, sys.argv[1:]))
