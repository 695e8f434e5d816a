"""Tables of results, for reading (Markdown) and for computing (CSV)."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.runner import Outcome
from jmer.errors import UserError
from jmer.evaluation import mean_and_deviation
from jmer.evaluation.report import SYNTHETIC_BANNER
from jmer.files import atomically
from jmer.selection import get_selection

NOTHING = "–"


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Lays out rows (column -> text) as a table that is aligned as plain text, too."""
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = (" | ".join(map(str.ljust, line, widths)) for line in cells)
    return "\n".join(f"| {line} |" for line in (head, " | ".join("-" * width for width in widths), *body))


def write(out: Path, text: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes `table.md`, and `table.csv` with the values of `rows`, unrounded; an empty field = there is none."""
    with atomically(out / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomically(out / "table.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def percent(values: Iterable[float]) -> str:
    """Returns mean ± sample deviation of fractions, in percent; a single value has no deviation."""
    values = list(values)
    if not values:
        return NOTHING
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.2f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.2f}")


def number(value: float) -> str:
    """Returns a p value or an effect size with three decimals, also where it is too small for them; NaN is nothing."""
    return NOTHING if math.isnan(value) else "< 0.001" if 0 <= value < 0.001 else f"{value:.3f}"


def statistics_of(name: str, values: Iterable[float]) -> dict[str, object]:
    """Returns `name_mean` and `name_sd` for a CSV row, "" where there are too few values."""
    values = list(values)
    mean, deviation = mean_and_deviation(values) if values else (math.nan, math.nan)
    return {f"{name}_{what}": "" if math.isnan(value) else value for what, value in (("mean", mean), ("sd", deviation))}


def how_chosen(outcomes: Sequence[Outcome]) -> str:
    """Says by what the epochs were chosen. Raises UserError if no run succeeded, so that there is nothing to show."""
    results = [result for outcome in outcomes for result in outcome.results.values()]
    if not results:
        reasons = [reason for outcome in outcomes for reason in outcome.failures.values()]
        raise UserError(f"no run succeeded: {reasons[0]}")
    return " / ".join(sorted({get_selection(result.selection).description for result in results}))


def banner(synthetic: bool) -> list[str]:
    """Returns the warning that belongs above scores of a synthetic corpus, none for a real one."""
    return [SYNTHETIC_BANNER] if synthetic else []


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Says in a line each which runs failed and why."""
    return [
        f"{outcome.row.corpus}, {outcome.row.name}, seed {seed}: {reason}"
        for outcome in outcomes
        for seed, reason in outcome.failures.items()
    ]


def listed(title: str, lines: Sequence[str]) -> list[str]:
    """Returns the two paragraphs of a list, none if there is nothing in it."""
    return [title, "\n".join(f"- {line}" for line in lines)] if lines else []
