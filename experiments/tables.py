"""Tables of results as Markdown, CSV and LaTeX, and the numbers in them."""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from jmer.evaluation import mean_and_deviation
from jmer.evaluation.report import SYNTHETIC_BANNER
from jmer.files import atomically

NOTHING = "–"


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns rows (column -> text) as a Markdown table whose columns are also aligned as plain text."""
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = (" | ".join(map(str.ljust, line, widths)) for line in cells)
    return "\n".join(f"| {line} |" for line in (head, " | ".join("-" * width for width in widths), *body))


def latex(rows: Sequence[Mapping[str, str]], *, caption: str, label: str) -> str:
    r"""Returns rows (column -> text) as a LaTeX table with the rules of the package `booktabs`.

    Args:
      rows: at least one; the first column is aligned to the left, the others to the right.
      caption, label: of the table; the caption is escaped, and what a label may not have becomes a hyphen.
    """
    style = pd.DataFrame(rows).style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    return "% \\usepackage{booktabs}\n" + style.to_latex(
        hrules=True,
        column_format="l" + "r" * (len(rows[0]) - 1),
        position_float="centering",
        caption=escape_latex(caption),
        label=re.sub(r"[^\w.:-]+", "-", label, flags=re.ASCII),
    )


def escape_latex(text: str) -> str:
    """Returns text for LaTeX, escaped by the rules that pandas has for cells of tables."""
    alone = pd.DataFrame([text]).style.hide(axis="index").hide(axis="columns")
    return alone.format(escape="latex").to_string().strip("\n")


def bullets(title: str, lines: Sequence[str]) -> list[str]:
    """Returns the two Markdown paragraphs of a titled list, none if the list is empty."""
    return [title, "\n".join(f"- {line}" for line in lines)] if lines else []


def banner(synthetic: bool) -> list[str]:
    """Returns the warning for scores on a synthetic corpus, none for a real one."""
    return [SYNTHETIC_BANNER] if synthetic else []


def write(out: Path, text: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes `table.md`, and `table.csv` with the unrounded values of `rows`; an empty field = no value."""
    write_text(out / "table.md", text)
    with atomically(out / "table.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, with a final newline."""
    with atomically(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def percent(values: Iterable[float]) -> str:
    """Returns mean ± sample standard deviation of fractions in percent; a single value has no deviation."""
    values = list(values)
    if not values:
        return NOTHING
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.2f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.2f}")


def number(values: Iterable[float], decimals: int = 3) -> str:
    """Returns mean ± sample standard deviation of the values that are not NaN; a single value has no deviation."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return NOTHING
    mean, deviation = mean_and_deviation(values)
    return f"{mean:,.{decimals}f}" + ("" if math.isnan(deviation) else f" ± {deviation:,.{decimals}f}")


def statistic(value: float) -> str:
    """Returns a p value or an effect size with three decimals, `< 0.001` if it is smaller, a dash if it is NaN."""
    return NOTHING if math.isnan(value) else "< 0.001" if 0 <= value < 0.001 else f"{value:.3f}"


def mean_and_sd(name: str, values: Iterable[float]) -> dict[str, object]:
    """Returns `name_mean` and `name_sd` for a CSV row, "" where there are too few values."""
    values = list(values)
    mean, deviation = mean_and_deviation(values) if values else (math.nan, math.nan)
    return {f"{name}_{what}": "" if math.isnan(value) else value for what, value in (("mean", mean), ("sd", deviation))}
