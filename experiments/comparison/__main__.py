"""Compares models on corpora: scores over seeds, size and speed, beside a logistic regression over neighbours.

    python -m experiments.comparison --corpus corpora/iemocap4 --corpus corpora/iemocap6 --corpus corpora/mosi
    python -m experiments.comparison --models lfvd,sdt --seeds 3 --jobs 2 --config.training.epochs=3
    python -m experiments.comparison --models lfvd,path/to/mine.py          # an experiment with a model of your own
    python -m experiments.comparison --variant '' --variant plain_features  # published settings, and smaller ones

All scores are those of the validation split. Each row is compared with one of them, `--base`, seed by seed, and the
best of the others by a bootstrap of whole conversations. The table is printed and written to OUT/table.md and
OUT/table.csv; each run is a folder OUT/<corpus>/<model>/seed<n>. The same command again resumes, and a command with
more seeds or models adds to what is there.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from experiments import tables
from experiments.baselines.context_regression import regress
from experiments.grid import cli, paired
from experiments.grid.cells import Outcome, Row, failure_lines, run_folder, selection_rule
from experiments.grid.corpora import corpus_name, training_corpus
from experiments.grid.executor import run_grid
from experiments.grid.models import MODELS, choose_models, model_row, row_name
from jmer.config import fit_to_corpus
from jmer.errors import UserError
from jmer.evaluation.predictions import corpus_title
from jmer.runs.directory import read_json, write_json
from jmer.runs.predictions import read_split

PROGRAM = "experiments.comparison"
CORPORA = ("synthetic-iemocap4", "synthetic-iemocap6")
CONTEXTS = (0, 3)
# The model without context and speakers, which the others should be above.
FLOOR = "concat_mlp"
PUBLISHED = "published"
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


def candidate(
    model: str, corpus: str, *, variant: str, changes: Mapping[str, str], name: str | None = None
) -> Candidate:
    """Returns a model on a corpus.

    Args:
      model: name in `experiments.grid.models.MODELS`, or what `jmer.get_config` takes.
      corpus: what `--corpus` takes.
      variant: of the experiment, besides those after its colon.
      changes: `section.field` -> text.
      name: of the row; None = the model's.

    Raises:
      UserError: if the corpus, the experiment, the variant or a change is invalid.
    """
    row = model_row(model, corpus, name=name or row_name(model), variant=variant, changes=changes)
    loaded, config = training_corpus(corpus), row.config
    try:
        return Candidate(row, tuple(fit_to_corpus(config, loaded.card, loaded.conversations("train")).model.modalities))
    except UserError as error:
        return Candidate(row, tuple(config.model.modalities), str(error))


def candidates_of(
    models: Sequence[str], variants: Sequence[str], corpora: Sequence[str], changes: Mapping[str, str]
) -> list[Candidate]:
    """Returns every model with every variant on every corpus; experiments of others have no variants of jmer's."""
    found = []
    for corpus, model in itertools.product(corpora, models):
        for variant in variants if model in MODELS else [""]:
            several = model in MODELS and len(variants) > 1
            name = f"{model}-{row_name(variant or PUBLISHED)}" if several else None
            found.append(candidate(model, corpus, variant=variant, changes=changes, name=name))
    return found


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
    candidates: Sequence[Candidate],
    outcomes: Mapping[Row, Outcome],
    baselines: Sequence[Regression],
    *,
    base: str = "",
    predictions: Callable[[Row, int], pd.DataFrame] | None = None,
) -> tuple[str, list[dict[str, object]]]:
    """Returns the text of the comparison, and its rows with unrounded values.

    Args:
      candidates, outcomes, baselines: what was run.
      base: name of the row that the others are compared with; none is, where it has no results.
      predictions: returns those of a row's run on the validation split; None = no bootstrap over conversations.

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
        "Logistic regression is deterministic and has no seeds. Utterances seen: in training, mean over seeds; "
        "epochs of a curriculum are not equal in work. Utterances/s: in training, median over epochs, mean "
        f"over seeds, on {devices}, which other runs may have used at the same time.",
        tables.markdown(shown),
        *_paired_sections(ran, base, predictions),
        *tables.bullets("Left out:", _left_out(candidates, baselines)),
        *tables.bullets("Failed runs:", failure_lines(ran)),
    ]
    return "\n\n".join(text), values


def _paired_sections(
    outcomes: Sequence[Outcome], base: str, predictions: Callable[[Row, int], pd.DataFrame] | None
) -> list[str]:
    """Returns the paragraphs that compare the rows of each corpus with the base."""
    parts = []
    for corpus in dict.fromkeys(outcome.row.corpus for outcome in outcomes):
        found = {outcome.row.name: outcome for outcome in outcomes if outcome.row.corpus == corpus and outcome.results}
        if base not in found or len(found) == 1:
            continue
        scores = {name: outcome.scores("weighted_f1") for name, outcome in found.items()}
        compared = paired.compare_with(scores.pop(base), scores)
        card = training_corpus(corpus).card
        parts += [f"## {corpus_title(card)}: against {base}", paired.explanation(base, compared)]
        parts.append(tables.markdown([paired.cells(*item) for item in compared.items()]))
        if predictions is not None:
            rival = max(compared, key=lambda name: compared[name].comparison.mean)
            runs = {
                name: [predictions(found[name].row, seed) for seed in found[name].results] for name in (base, rival)
            }
            parts.append(paired.over_conversations(base, rival, runs, card.emotions))
    return parts


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
        "utterances seen": f"{fmean(result.utterances_seen for result in results):,.0f}",
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
    columns = (
        "accuracy %",
        "W-F1 %",
        "W-F1 %, last 5 epochs",
        "parameters",
        "utterances seen",
        "utterances/s",
        "seeds",
    )
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
    values |= tables.mean_and_sd("utterances_seen", [result.utterances_seen for result in results.values()])
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


def _base(wanted: str | None, names: Sequence[str]) -> str:
    """Returns the name of the row that the others are compared with. Raises UserError if there is no such row."""
    if wanted is None:
        return next((name for name in names if name.partition("-")[0] == FLOOR), names[0])
    if wanted not in names:
        raise UserError(f"--base is '{wanted}': choose one of the rows {', '.join(dict.fromkeys(names))}")
    return wanted


def main(arguments: Sequence[str]) -> int:
    """Trains the runs of the comparison and prints its table; returns the exit status."""
    parser = cli.make_parser(PROGRAM, __doc__, seeds=5, corpora=CORPORA, several_variants=True)
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"), help="default: runs/comparison")
    parser.add_argument(
        "--models",
        default=",".join(MODELS),
        metavar="MODEL,...",
        help=f"names, or paths of experiment files such as mine.py:variant (default: {','.join(MODELS)})",
    )
    parser.add_argument(
        "--base",
        metavar="ROW",
        help=f"row that the others are compared with (default: the first of {FLOOR}, else the first)",
    )
    options, changes = cli.parse(parser, arguments)
    models = choose_models("--models", options.models)
    variants = list(dict.fromkeys(options.variant or [cli.PLAIN]))
    candidates = candidates_of(models, variants, options.corpora, changes)
    base = _base(options.base, [candidate.row.name for candidate in candidates])
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
    text, values = report(
        candidates,
        dict(zip(rows, outcomes, strict=True)),
        baselines,
        base=base,
        predictions=lambda row, seed: read_split(run_folder(options.out, row, seed), "validation"),
    )
    tables.write(options.out, text, values)
    return cli.print_report(text, outcomes, options.out)


if __name__ == "__main__":
    sys.exit(cli.launch(PROGRAM, main, sys.argv[1:]))
