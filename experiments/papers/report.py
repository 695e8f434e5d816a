"""The text, the CSV rows and the LaTeX table of a finished study."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from experiments import tables
from experiments.grid import paired
from experiments.grid.cells import Outcome, Row, failure_lines, selection_rule
from experiments.grid.paired import Compared, compare_with
from experiments.papers.declaration import Entry, Printed
from experiments.papers.planning import Line
from experiments.papers.study import Study
from jmer.evaluation.predictions import corpus_title

SCORES = {"accuracy": "accuracy %", "weighted_f1": "W-F1 %"}


def compare_with_base(study: Study) -> dict[str, Compared]:
    """Returns title -> comparison with the base, of every entry that has results; empty if the base has none."""
    by_title = {line.entry.title: outcome.scores("weighted_f1", study.split) for line, outcome in study.finished}
    base = by_title.pop(study.table.base, {})
    if not base:
        return {}
    # Entries that share the runs of the base are not compared with it.
    own = {line.entry.title for line, _ in study.finished if line.row is _base_row(study)}
    return compare_with(base, {title: values for title, values in by_title.items() if title not in own})


def markdown(study: Study, compared: Mapping[str, Compared], pictures: Sequence[str], *, same_features: bool) -> str:
    """Returns the text of a study.

    Args:
      study: finished.
      compared: what `compare_with_base` returned.
      pictures: file names of its figures, in the folder of the text.
      same_features: whether the user declares that the corpus has the paper's features.
    """
    ran = [outcome for _, outcome in study.finished]
    parts = [
        f"## {corpus_title(study.card)}",
        *tables.banner(study.card.synthetic),
        _explanation(study, ran, same_features),
        tables.markdown([_cells(study, line, compared) for line in _shown(study)]),
    ]
    if compared:
        tests = tables.markdown([paired.cells(*item) for item in compared.items()])
        parts += [paired.explanation(study.table.base, compared), tests, _bootstrap(study, compared)]
    parts += ["Size and speed (on a machine that may have run other programs, too):", tables.markdown(_sizes(study))]
    parts += [f"![{study.table.source}, {corpus_title(study.card)}]({name})" for name in pictures]
    parts += tables.bullets("Left out:", _obstacles(study))
    parts += tables.bullets("Failed runs:", _failures(study))
    return "\n\n".join(parts)


def no_results(study: Study) -> list[str]:
    """Returns the paragraphs of a study without results: the reasons."""
    return [f"## {corpus_title(study.card)}", *tables.bullets("No results:", _obstacles(study) + _failures(study))]


def values(study: Study, compared: Mapping[str, Compared], *, same_features: bool) -> list[dict[str, object]]:
    """Returns a CSV row per entry with unrounded values; see `markdown`."""
    return [_values(study, line, compared.get(line.entry.title), same_features) for line in study.lines]


def latex(study: Study, compared: Mapping[str, Compared], *, same_features: bool) -> str:
    """Returns a LaTeX table; see `markdown`."""
    rows = [_cells(study, line, compared) for line in _shown(study)]
    features = "the same features" if same_features else "other features"
    caption = (
        f"{study.table.source}. {corpus_title(study.card)}, {study.split} split, mean ± sd over seeds, the epoch "
        f"{selection_rule([outcome for _, outcome in study.finished])}. In brackets: as printed ({features})."
    )
    return tables.latex(rows, caption=caption, label=f"tab:{study.name}-{study.corpus_name}")


def _obstacles(study: Study) -> list[str]:
    """Returns why entries have no runs: jmer does not have the model, or the corpus does not suit it."""
    return [
        f"{line.entry.title}: {line.obstacle or line.entry.absent}"
        for line in study.lines
        if line.obstacle or (line.entry.absent and _printed(study, line.entry))
    ]


def _failures(study: Study) -> list[str]:
    rows = dict.fromkeys(line.row for line in study.lines if line.row)
    return failure_lines([study.outcomes[row] for row in rows])


def _base_row(study: Study) -> Row | None:
    return next((line.row for line in study.lines if line.entry.title == study.table.base), None)


def _explanation(study: Study, ran: Sequence[Outcome], same_features: bool) -> str:
    features = (
        "the paper's (--same-features)" if same_features else "not the paper's, so the numbers are not comparable"
    )
    printed = f" In brackets: what the paper prints, of the test split; the features here are {features}."
    return (
        f"Scores of the {study.split.upper()} split, mean ± sample standard deviation over n seeds. The epoch of a run "
        f"was {selection_rule(ran)}." + (printed if any(_printed(study, line.entry) for line in study.lines) else "")
    )


def _shown(study: Study) -> list[Line]:
    """Returns the lines that were run, or that have printed numbers for this task."""
    return [line for line in study.lines if line.row or (not line.obstacle and _printed(study, line.entry))]


def _printed(study: Study, entry: Entry) -> Printed | None:
    return entry.printed.get(study.task)


def _cells(study: Study, line: Line, compared: Mapping[str, Compared]) -> dict[str, str]:
    title, outcome, printed = line.entry.title, study.outcomes.get(line.row), _printed(study, line.entry) or Printed()
    row = {"row": title}
    for name, label in SCORES.items():
        found = outcome.scores(name, study.split).values() if outcome else ()
        row[label] = _beside(tables.percent(found), getattr(printed, name))
    for emotion in study.emotions if study.table.classes else ():
        found = _class_f1(outcome, study.split, emotion)
        row[f"{emotion} F1 %"] = _beside(tables.percent(found), printed.classes.get(emotion))
    row["n"] = str(len(outcome.results)) if outcome else tables.NOTHING
    if compared:
        own = compared.get(title)
        row["difference"] = tables.percent(own.comparison.differences) if own else tables.NOTHING
        row["verdict"] = own.verdict if own else ("base" if title == study.table.base else tables.NOTHING)
    return row


def _beside(found: str, printed: float | None) -> str:
    return found if printed is None else f"{found} [{printed:.2f}]"


def _class_f1(outcome: Outcome | None, split: str, emotion: str) -> list[float]:
    results = outcome.results.values() if outcome else ()
    return [result.scores[split].classes[emotion].f1 for result in results]


def _bootstrap(study: Study, compared: Mapping[str, Compared]) -> str:
    """Describes the comparison of the base with the best other row on resampled conversations."""
    base, rival = study.table.base, max(compared, key=lambda title: compared[title].comparison.mean)
    runs = {title: [*study.predictions()[title].values()] for title in (base, rival)}
    return paired.over_conversations(base, rival, runs, study.emotions)


def _sizes(study: Study) -> list[dict[str, str]]:
    rows = []
    for line, outcome in study.finished:
        results = [*outcome.results.values()]
        rows.append(
            {
                "row": line.entry.title,
                "parameters": f"{results[0].parameters:,}",
                "utterances/s in training": f"{fmean(outcome.speeds):.0f}",
                "selected epoch": ", ".join(str(result.epoch) for result in results),
                "of": str(results[0].epochs),
            }
        )
    return rows


def _values(study: Study, line: Line, own: Compared | None, same_features: bool) -> dict[str, object]:
    outcome, printed = study.outcomes.get(line.row), _printed(study, line.entry) or Printed()
    results = outcome.results if outcome else {}
    found = {
        "table": study.name,
        "corpus": study.corpus,
        "synthetic": study.card.synthetic,
        "split": study.split,
        "row": line.entry.title,
        "run": line.row.name if line.row else "",
        "note": line.obstacle
        or line.entry.absent
        or ("; ".join(dict.fromkeys(outcome.failures.values())) if outcome else ""),
        "selection": " / ".join(sorted({result.selection.name for result in results.values()})),
        "n": len(results),
    }
    for name in SCORES:
        scores = outcome.scores(name, study.split).values() if outcome else ()
        found |= tables.mean_and_sd(name, scores) | {f"{name}_printed": _or_empty(getattr(printed, name))}
    for emotion in study.emotions if study.table.classes else ():
        found |= tables.mean_and_sd(f"f1_{emotion}", _class_f1(outcome, study.split, emotion))
        found |= {f"f1_{emotion}_printed": _or_empty(printed.classes.get(emotion))}
    found["same_features"] = same_features
    comparison = own and own.comparison
    found |= tables.mean_and_sd("difference", comparison.differences if own else ())
    found |= {
        "interval_low": _or_empty(comparison and comparison.interval[0]),
        "interval_high": _or_empty(comparison and comparison.interval[1]),
        "p_t": _or_empty(comparison and comparison.t_p),
        "p_holm": _or_empty(own and own.adjusted),
        "p_wilcoxon": _or_empty(comparison and comparison.wilcoxon_p),
        "effect_size": _or_empty(comparison and comparison.effect_size),
        "verdict": own.verdict if own else "",
        "parameters": next((result.parameters for result in results.values()), ""),
    }
    return found | tables.mean_and_sd("utterances_per_second", outcome.speeds if outcome else ())


def _or_empty(value: float | None) -> object:
    return "" if value is None or math.isnan(value) else value
