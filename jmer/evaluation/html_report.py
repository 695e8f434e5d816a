"""Report of a run as one self-contained HTML page: scores, charts and a viewer of conversations."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape

from jmer.data.corpus import SPLITS
from jmer.evaluation.calibration import Calibration, calibration
from jmer.evaluation.html_charts import LineChart, ReliabilityChart, line_chart, reliability_chart
from jmer.evaluation.html_page import render_page
from jmer.evaluation.html_viewer import PredictedSplit, viewer_data
from jmer.evaluation.metrics import Scores
from jmer.evaluation.plots import loss_series, score_series, spans_decades
from jmer.evaluation.report import (
    Report,
    attribute_table,
    banners,
    config_lines,
    data_warning,
    headline,
    split_title,
)
from jmer.files import atomically

HTML_REPORT_FILE = "report.html"


@dataclasses.dataclass(frozen=True)
class _Cell:
    """Cell of a confusion matrix.

    Attributes:
      gold, predicted: the cell's emotions.
      count: number of utterances.
      fraction: `count` divided by the number of the gold emotion's utterances.
      correct: whether the cell is on the diagonal.
      link: address of these utterances in the viewer; None = not in it.
    """

    gold: str
    predicted: str
    count: int
    fraction: float
    correct: bool
    link: str | None


@dataclasses.dataclass(frozen=True)
class _SplitSection:
    """Section on a scored split; without predictions of the split there is no calibration."""

    title: str
    scores: Scores
    confusion: Sequence[tuple[str, int, Sequence[_Cell]]]
    calibration: Calibration | None
    reliability: ReliabilityChart | None
    attributes: tuple[tuple[str, ...], list[tuple[str, ...]]] | None


def write_html_report(folder: str | Path, report: Report, predicted: Mapping[str, PredictedSplit]) -> Path:
    """Writes `report.html`, one file that refers to no other, for desktop and phone browsers and for print.

    Args:
      folder: folder to write to.
      report: contents of the report, see `jmer.evaluation.report.write_report`.
      predicted: split -> its conversations and predictions, for the calibration and the conversation viewer.

    Returns:
      The path of `report.html`.

    Raises:
      UserError: if the file cannot be written.
    """
    path = Path(folder) / HTML_REPORT_FILE
    shown = {split: predicted[split] for split in reversed(SPLITS) if split in predicted}
    page = render_page(
        "report.html",
        emotions=report.card.emotions,
        title=report.title,
        report=report,
        banners=[
            _emphasized(re.sub(r"^> ", "", banner, flags=re.MULTILINE))
            for banner in banners(synthetic=report.card.synthetic, selection=report.selection)
        ],
        headline=_emphasized(headline(report)),
        data_warning=_emphasized(data_warning(report)),
        sections=[_split_section(report, split, shown.get(split)) for split in report.scored_splits],
        metrics=report.metrics,
        curves=_curves(report),
        config="\n".join(config_lines(report.config)),
        viewer=viewer_data(report.card.emotions, shown),
    )
    with atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _emphasized(text: str) -> Markup:
    """Returns the HTML of a report's Markdown text, which uses `**strong**` and `` `code` `` only."""
    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", marked))


def _curves(report: Report) -> list[LineChart]:
    if not report.history:
        return []
    epochs = [row["epoch"] for row in report.history]
    losses, scores = loss_series(report.history), score_series(report.history, report.selection.metric)
    charts = []
    if losses:
        logarithmic = spans_decades(losses.values())
        charts.append(line_chart(epochs, losses, label="loss", chosen=report.epoch, logarithmic=logarithmic))
    if scores:
        charts.append(line_chart(epochs, scores, label=f"{report.selection.title} (%)", chosen=report.epoch))
    return charts


def _split_section(report: Report, split: str, predicted: PredictedSplit | None) -> _SplitSection:
    measured = None
    if predicted is not None:
        labels = np.concatenate([conversation.labels for conversation in predicted.conversations])
        measured = calibration(np.concatenate(predicted.predictions.probabilities), labels)
    return _SplitSection(
        title=split_title(report, split),
        scores=report.scores[split],
        confusion=list(_confusion_rows(report.scores[split], split if predicted else None)),
        calibration=measured,
        reliability=None if measured is None else reliability_chart(measured),
        attributes=attribute_table(report.scores[split]) if report.scores[split].attributes else None,
    )


def _confusion_rows(scores: Scores, split: str | None) -> Iterator[tuple[str, int, list[_Cell]]]:
    """Yields gold emotion, support and cells of each row; cells link to the viewer of `split` unless that is None."""
    names = tuple(scores.classes)
    for i, counts in enumerate(scores.confusion):
        support = sum(counts)
        cells = [
            _Cell(
                gold=names[i],
                predicted=names[j],
                count=count,
                fraction=count / max(support, 1),
                correct=i == j,
                link=f"#split={split}&filter={i}-{j}" if split and count else None,
            )
            for j, count in enumerate(counts)
        ]
        yield names[i], support, cells
