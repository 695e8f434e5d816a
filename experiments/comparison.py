"""Compares models on corpora: scores over seeds, size and speed, beside a logistic regression with context.

    python -m experiments.comparison --corpus corpora/iemocap4 --corpus corpora/iemocap6 --corpus corpora/mosi
    python -m experiments.comparison --models lfvd,sdt --seeds 3 --jobs 2 --config.training.epochs=3

Every score is one of the validation split. The table is printed and written to OUT/table.md and OUT/table.csv, each
run is a folder OUT/<corpus>/<model>/seed<n>. The same command again goes on where it was stopped, and a command with
more seeds or models adds to it.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sklearn.exceptions import ConvergenceWarning

from experiments import program, tables
from experiments.baselines.context_regression import regress
from experiments.models import MODELS, model_row
from experiments.runner import Outcome, Row, corpus_name, run, sound_corpus
from jmer.config import fit_to_corpus
from jmer.errors import UserError
from jmer.evaluation.predictions import corpus_title
from jmer.training.folder import read_json, write_json

PROGRAM = "experiments.comparison"
CORPORA = ("synthetic-iemocap4", "synthetic-iemocap6")
CONTEXTS = (0, 3)
CANNOT = "cannot use it"


@dataclasses.dataclass(frozen=True)
class Contender:
    """A model on a corpus.

    Attributes:
      row: what is run.
      modalities: those that the model reads.
      obstacle: why it cannot use the corpus; empty = it can.
    """

    row: Row
    modalities: tuple[str, ...]
    obstacle: str = ""


@dataclasses.dataclass(frozen=True)
class Regression:
    """A logistic regression on a corpus: its scores on the validation split, or what went wrong."""

    corpus: str
    modalities: tuple[str, ...]
    context: int
    scores: Mapping[str, float]
    problem: str = ""


def contender(model: str, corpus: str, *, variant: str, changes: Mapping[str, str]) -> Contender:
    """Pairs a model with a corpus.

    Args:
      model: name in `experiments.models.MODELS`.
      corpus: as `--corpus` takes it.
      variant: of the experiment.
      changes: `section.field` -> text.

    Raises:
      UserError: if the corpus, the experiment, the variant or a change is at fault.
    """
    row = model_row(model, corpus, name=model, variant=variant, changes=changes)
    made, config = sound_corpus(corpus), row.config
    try:
        return Contender(row, tuple(fit_to_corpus(config, made.card, made.conversations("train")).model.modalities))
    except UserError as error:
        return Contender(row, tuple(config.model.modalities), str(error))


def regressions(pairs: Sequence[Contender], out: Path) -> Iterator[Regression]:
    """Fits the regressions for every set of modalities that a model reads, or finds them in `out`."""
    wanted = dict.fromkeys((pair.row.corpus, pair.modalities) for pair in pairs if not pair.obstacle)
    for path, modalities in wanted:
        for context in CONTEXTS:
            yield _regression(path, modalities, context, out)


def _regression(path: str, modalities: tuple[str, ...], context: int, out: Path) -> Regression:
    corpus = sound_corpus(path)
    file = out / corpus_name(path) / "logistic_regression" / f"{'+'.join(modalities)}_context{context}.json"
    made_of = {"corpus": path, "card": dataclasses.asdict(corpus.card) | {"emotions": [*corpus.card.emotions]}}
    saved = read_json(file) if file.exists() else {}
    if {name: saved.get(name) for name in made_of} == made_of:
        return Regression(path, modalities, context, saved["scores"])
    try:
        scores = regress(corpus, modalities, context)._asdict()
    except (UserError, ConvergenceWarning) as error:
        return Regression(path, modalities, context, {}, " ".join(str(error).split()))
    write_json(file, made_of | {"scores": scores})
    return Regression(path, modalities, context, scores)


def lay_out(
    pairs: Sequence[Contender], outcomes: Mapping[Row, Outcome], baselines: Sequence[Regression]
) -> tuple[str, list[dict[str, object]]]:
    """Returns the text of the comparison, and its rows with unrounded values.

    Raises:
      UserError: if no run succeeded.
    """
    shown, values = [], []
    for corpus in dict.fromkeys(pair.row.corpus for pair in pairs):
        for pair in (pair for pair in pairs if pair.row.corpus == corpus):
            shown.append(_model_cells(pair, outcomes.get(pair.row)))
            values.append(_model_values(pair, outcomes.get(pair.row)))
        for regression in (regression for regression in baselines if regression.corpus == corpus):
            shown.append(_regression_cells(regression))
            values.append(_regression_values(regression))
    ran = list(outcomes.values())
    devices = " / ".join(sorted({result.devices for outcome in ran for result in outcome.results.values()}))
    text = [
        "# Comparison of models",
        *tables.banner(any(sound_corpus(pair.row.corpus).card.synthetic for pair in pairs)),
        "Scores of the VALIDATION split, mean ± sample standard deviation over seeds. The epoch of a run was "
        f"{tables.how_chosen(ran)}, so its score is optimistic; the mean over the last five epochs chooses nothing. "
        "Logistic regression draws nothing at random and needs no seeds. Utterances/s: in training, the median over "
        f"epochs, mean over seeds, on {devices}, which other runs may have shared.",
        tables.markdown(shown),
        *tables.listed("Left out:", _left_out(pairs, baselines)),
        *tables.listed("Failed runs:", tables.failures(ran)),
    ]
    return "\n\n".join(text), values


def _left_out(pairs: Sequence[Contender], baselines: Sequence[Regression]) -> list[str]:
    obstacles = [f"{pair.row.corpus}, {pair.row.name}: {pair.obstacle}" for pair in pairs if pair.obstacle]
    return obstacles + [f"{b.corpus}, logistic regression: {b.problem}" for b in baselines if b.problem]


def _model_cells(pair: Contender, outcome: Outcome | None) -> dict[str, str]:
    cells = _cells(pair.row.corpus, pair.row.name, CANNOT if pair.obstacle else "+".join(pair.modalities))
    if outcome is None or not outcome.results:
        return cells | {"seeds": f"0 of {len(outcome.failures)}" if outcome else tables.NOTHING}
    results, total = outcome.results.values(), len(outcome.results) + len(outcome.failures)
    return cells | {
        "accuracy %": tables.percent(outcome.scores("accuracy").values()),
        "W-F1 %": tables.percent(outcome.scores("weighted_f1").values()),
        "W-F1 %, last 5 epochs": tables.percent(result.last_epochs for result in results),
        "parameters": f"{next(iter(results)).parameters:,}",
        "utterances/s": f"{sum(result.speed for result in results) / len(results):.0f}",
        "seeds": str(total) if not outcome.failures else f"{len(results)} of {total}",
    }


def _regression_cells(regression: Regression) -> dict[str, str]:
    what = CANNOT if regression.problem else "+".join(regression.modalities)
    cells = _cells(regression.corpus, f"logistic regression, context {regression.context}", what)
    if regression.problem:
        return cells
    scores = regression.scores
    return cells | {
        "accuracy %": tables.percent([scores["accuracy"]]),
        "W-F1 %": tables.percent([scores["weighted_f1"]]),
    }


def _cells(corpus: str, model: str, modalities: str) -> dict[str, str]:
    head = {"corpus": corpus_title(sound_corpus(corpus).card), "model": model, "modalities": modalities}
    columns = ("accuracy %", "W-F1 %", "W-F1 %, last 5 epochs", "parameters", "utterances/s", "seeds")
    return head | dict.fromkeys(columns, tables.NOTHING)


def _model_values(pair: Contender, outcome: Outcome | None) -> dict[str, object]:
    results = outcome.results if outcome else {}
    values = {
        "corpus": pair.row.corpus,
        "model": pair.row.name,
        "modalities": "+".join(pair.modalities),
        "note": pair.obstacle or "; ".join(dict.fromkeys(outcome.failures.values())),
        "seeds": len(results),
    }
    for split in ("validation", "test"):
        for name in ("accuracy", "weighted_f1"):
            scores = outcome.scores(name, split) if outcome else {}
            values |= tables.statistics_of(f"{split}_{name}", scores.values())
    last_epochs = [result.last_epochs for result in results.values()]
    values |= tables.statistics_of("validation_weighted_f1_last_epochs", last_epochs)
    values["parameters"] = next((result.parameters for result in results.values()), "")
    return values | tables.statistics_of("utterances_per_second", [result.speed for result in results.values()])


def _regression_values(regression: Regression) -> dict[str, object]:
    return {
        "corpus": regression.corpus,
        "model": f"logistic_regression_context{regression.context}",
        "modalities": "+".join(regression.modalities),
        "note": regression.problem,
        "validation_accuracy_mean": regression.scores.get("accuracy", ""),
        "validation_weighted_f1_mean": regression.scores.get("weighted_f1", ""),
    }


def main(arguments: Sequence[str]) -> int:
    """Runs the comparison and prints its table; returns the exit status."""
    parser = program.make_parser(PROGRAM, __doc__, seeds=5, corpora=CORPORA)
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"), help="default: runs/comparison")
    parser.add_argument(
        "--models", default=",".join(MODELS), help=f"joined by commas (default: all, which are {', '.join(MODELS)})"
    )
    options, changes = program.parse(parser, arguments)
    models = program.chosen("--models", options.models, MODELS)
    pairs = [
        contender(model, corpus, variant=options.variant, changes=changes)
        for corpus in options.corpora
        for model in models
    ]
    rows = [pair.row for pair in pairs if not pair.obstacle]
    if not rows:
        raise UserError(f"no model can use the corpus: {pairs[0].obstacle}")
    baselines = []
    for regression in regressions(pairs, options.out):
        score = regression.problem or f"validation W-F1 {tables.percent([regression.scores['weighted_f1']])} %"
        which = f"{'+'.join(regression.modalities)} with context {regression.context}"
        program.say(f"{corpus_name(regression.corpus)} logistic regression on {which}: {score}")
        baselines.append(regression)
    at_once = {"jobs": options.jobs, "together": options.together}
    outcomes = run(rows, range(options.seeds), options.out, **at_once, say=program.say)
    text, values = lay_out(pairs, dict(zip(rows, outcomes, strict=True)), baselines)
    tables.write(options.out, text, values)
    return program.report(text, outcomes, options.out)


if __name__ == "__main__":
    sys.exit(program.launch(PROGRAM, main, sys.argv[1:]))
