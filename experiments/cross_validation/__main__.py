"""Compares models by cross-validation: scores over folds, and pooled over all test utterances.

    python -m experiments.cross_validation --corpus corpora/iemocap4 --models lpgnet,sdt --seeds 3
    python -m experiments.cross_validation --corpus corpora/mine --folds 5 --config.data.holdout_by=speaker
    python -m experiments.cross_validation --corpus corpora/mine --folds corpus --models sdt,path/to/mine.py

All scores are those of the folds' test splits, at the epoch that each fold's own validation split selects. The table is
printed and written to OUT/table.md and OUT/table.csv, and the report of a model to OUT/<corpus>/<model>/report.md. The
same command again resumes, and a command with more seeds or models adds to what is there.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import jmer
from experiments import tables
from experiments.grid import cli
from experiments.grid.cells import Outcome, Row, failure_lines, selection_rule
from experiments.grid.corpora import corpus_name, whole_corpus
from experiments.grid.executor import run_grid
from experiments.grid.models import choose_models, model_row, row_name
from jmer.data.folds import LEAVE_ONE_SESSION_OUT, make_folds
from jmer.errors import UserError
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.significance import bootstrap_conversations, verdict
from jmer.runs import CrossValidation
from jmer.runs.cross_validation import claim_folds

PROGRAM = "experiments.cross_validation"
SHOWN = {"accuracy": "accuracy", "weighted_f1": "W-F1", "unweighted_accuracy": "UA"}
# Fields that the flags of this study set -> the flag to use instead.
RESERVED = {"data.folds": "--folds", "data.fold": "--folds"}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model on a corpus, with a row of the grid for each fold.

    Attributes:
      model: its name in tables and folders.
      corpus: what `--corpus` takes.
      folder: of its runs.
      rows: of the grid.
    """

    model: str
    corpus: str
    folder: Path
    rows: tuple[Row, ...]


def candidate(model: str, corpus: str, out: Path, *, folds: str, variant: str, changes: Mapping[str, str]) -> Candidate:
    """Returns a model on a corpus, and claims the folder of its folds.

    Args:
      model: name in `experiments.grid.models.MODELS`, or what `jmer.get_config` takes.
      corpus: what `--corpus` takes.
      out: parent of all folders.
      folds: see `jmer.data.folds.make_folds`.
      variant: of the experiment, besides those after its colon.
      changes: `section.field` -> text.

    Raises:
      UserError: if the corpus, the experiment, the folds, the variant or a change is invalid.
    """
    name = row_name(model)
    single = model_row(model, corpus, name=name, variant=variant, changes=changes)
    by = single.config.data.holdout_by
    names = [fold.name for fold in make_folds(whole_corpus(corpus), folds, by=by)]
    folder = out / corpus_name(corpus) / name
    folders = claim_folds(folder, folds, names)
    rows = [
        dataclasses.replace(
            single,
            name=f"{name}/{folders[fold].name}",
            overrides={**changes, "data.folds": folds, "data.fold": fold},
        )
        for fold in names
    ]
    return Candidate(name, corpus, folder, tuple(rows))


def report(
    candidates: Sequence[Candidate], outcomes: Mapping[Row, Outcome], folds: str
) -> tuple[str, list[dict[str, object]]]:
    """Returns the text of the comparison, and its rows with unrounded values.

    Raises:
      UserError: if no run succeeded.
    """
    shown, values, compared = [], [], []
    for corpus in dict.fromkeys(each.corpus for each in candidates):
        loaded = {
            each.model: jmer.load_run(each.folder)
            for each in candidates
            if each.corpus == corpus and not any(outcomes[row].failures for row in each.rows)
        }
        for each in (each for each in candidates if each.corpus == corpus):
            validated = loaded.get(each.model)
            shown.append(_cells(each, validated))
            values += _values(each, validated)
        compared += _comparisons(corpus, loaded)
    ran = list(outcomes.values())
    text = [
        f"# Cross-validation, {folds}",
        *tables.banner(any(whole_corpus(each.corpus).card.synthetic for each in candidates)),
        "TEST scores in percent. Over folds: mean ± sample standard deviation of the folds' scores, each the mean over "
        "its seeds. Pooled: the predictions of all folds scored together, mean ± sample standard deviation over seeds. "
        f"The epoch of a run was {selection_rule(ran)}, on validation conversations of its own fold. Minutes per run: "
        "of training, up to the selected epoch, mean over the runs; runs of one program (--vectorize) take them "
        "together, and others may have used the machine at the same time.",
        tables.markdown(shown),
        *tables.bullets(
            "Differences in pooled weighted F1, with the 95 % interval and the p-value of a paired bootstrap over "
            "conversations, which takes the trained runs as given:",
            compared,
        ),
        *tables.bullets("Failed runs:", failure_lines(ran)),
    ]
    return "\n\n".join(text), values


def _cells(each: Candidate, validated: CrossValidation | None) -> dict[str, str]:
    head = {"corpus": corpus_title(whole_corpus(each.corpus).card), "model": each.model}
    if validated is None:
        columns = (f"{title}, {of}" for of in ("folds", "pooled") for title in SHOWN.values())
        return head | dict.fromkeys((*columns, "minutes per run", "runs"), tables.NOTHING)
    of_folds = validated.fold_scores.values()
    over = {
        title: [sum(scores[name] for scores in seeds.values()) / len(seeds) for seeds in of_folds]
        for name, title in SHOWN.items()
    }
    pooled = {title: [scores[name] for scores in validated.pooled_scores.values()] for name, title in SHOWN.items()}
    return (
        head
        | {f"{title}, folds": tables.percent(found) for title, found in over.items()}
        | {f"{title}, pooled": tables.percent(found) for title, found in pooled.items()}
        | {"minutes per run": f"{fmean(run.seconds for run in validated) / 60:.1f}", "runs": str(len(validated))}
    )


def _values(each: Candidate, validated: CrossValidation | None) -> list[dict[str, object]]:
    """Returns a row for each fold and seed, and for each seed pooled."""
    if validated is None:
        return []
    by_fold = [(fold, seed, scores) for fold, seeds in validated.fold_scores.items() for seed, scores in seeds.items()]
    pooled = [("pooled", seed, scores) for seed, scores in validated.pooled_scores.items()]
    return [
        {"corpus": each.corpus, "model": each.model, "fold": fold, "seed": seed, "utterances": scores["support"]}
        | {name: scores[name] for name in (*SHOWN, "macro_f1")}
        for fold, seed, scores in by_fold + pooled
    ]


def _comparisons(corpus: str, loaded: Mapping[str, CrossValidation]) -> list[str]:
    """Returns a line for each model but the first, on its difference to the first."""
    if len(loaded) < 2:
        return []
    (first, reference), *others = loaded.items()
    emotions = whole_corpus(corpus).card.emotions
    lines = []
    for model, validated in others:
        found = bootstrap_conversations(
            list(reference.pooled_predictions.values()), list(validated.pooled_predictions.values()), emotions
        )
        low, high = found.interval
        lines.append(
            f"{corpus_name(corpus)}, {model} - {first}: {100 * found.difference:+.2f} points "
            f"({100 * low:+.2f} to {100 * high:+.2f}), p {found.p:.3f}: {verdict(found.p, found.difference)}"
        )
    return lines


def main(arguments: Sequence[str]) -> int:
    """Trains the runs of the comparison and prints its table; returns the exit status."""
    parser = cli.make_parser(PROGRAM, __doc__, seeds=3, corpora=())
    parser.add_argument(
        "--out", type=Path, default=Path("runs/cross_validation"), help="default: runs/cross_validation"
    )
    parser.add_argument("--models", default="lpgnet,sdt", metavar="MODEL,...", help="default: lpgnet,sdt")
    parser.add_argument(
        "--folds",
        default=LEAVE_ONE_SESSION_OUT,
        help="leave_one_session_out, leave_one_speaker_out, a number, or corpus (default: %(default)s)",
    )
    options, changes = cli.parse(parser, arguments)
    for field in changes.keys() & RESERVED.keys():
        raise UserError(f"--config.{field} cannot be set: use {RESERVED[field]}")
    models = choose_models("--models", options.models)
    candidates = [
        candidate(model, corpus, options.out, folds=options.folds, variant=options.variant, changes=changes)
        for corpus in options.corpora
        for model in models
    ]
    rows = [row for each in candidates for row in each.rows]
    parallel = {"jobs": options.jobs, "vectorize": options.vectorize}
    outcomes = run_grid(rows, range(options.seeds), options.out, **parallel, log=cli.log)
    text, values = report(candidates, dict(zip(rows, outcomes, strict=True)), options.folds)
    tables.write(options.out, text, values)
    return cli.print_report(text, outcomes, options.out)


if __name__ == "__main__":
    sys.exit(cli.launch(PROGRAM, main, sys.argv[1:]))
