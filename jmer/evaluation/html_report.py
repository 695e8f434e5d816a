"""Report of a run as one self-contained HTML page: scores, charts and a viewer of conversations."""

import base64
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from jmer.data.corpus import SPLITS, Conversation
from jmer.evaluation.calibration import Calibration, calibration
from jmer.evaluation.forward import Predictions
from jmer.evaluation.html_charts import LineChart, ReliabilityChart, line_chart, reliability_chart
from jmer.evaluation.markdown import percent
from jmer.evaluation.metrics import Scores
from jmer.evaluation.plots import STYLES, loss_series, score_series, spans_decades
from jmer.evaluation.report import (
    Report,
    banners,
    config_lines,
    data_warning,
    headline,
    split_title,
)
from jmer.files import atomically

HTML_REPORT_FILE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
# Decimals of the viewer's numbers; more would make the page of a large corpus slow to open.
DECIMALS = 4


@dataclasses.dataclass(frozen=True)
class PredictedSplit:
    """A split and its predictions.

    Attributes:
      conversations: conversations of the split, or its single utterances, with those of a conversation adjacent.
      predictions: predictions on `conversations`.
    """

    conversations: Sequence[Conversation]
    predictions: Predictions


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
    page = _page(report, {split: predicted[split] for split in reversed(SPLITS) if split in predicted})
    with atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _page(report: Report, predicted: Mapping[str, PredictedSplit]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False,
        "separators": (",", ":"),
        "allow_nan": False,
    }
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        report=report,
        banners=[
            _emphasized(re.sub(r"^> ", "", banner, flags=re.MULTILINE))
            for banner in banners(synthetic=report.card.synthetic, selection=report.selection)
        ],
        headline=_emphasized(headline(report)),
        data_warning=_emphasized(data_warning(report)),
        sections=[_split_section(report, split, predicted.get(split)) for split in report.scored_splits],
        metrics=report.metrics,
        curves=_curves(report),
        colours=[colour for colour, _ in STYLES],
        config="\n".join(config_lines(report.config)),
        viewer=_viewer(report, predicted),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The page's security policy admits this script only, so that no text of the corpus can run as one.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


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


def _viewer(report: Report, predicted: Mapping[str, PredictedSplit]) -> dict[str, Any]:
    """Returns the data of the conversation viewer, as values for JSON."""
    return {
        "emotions": list(report.card.emotions),
        "splits": {split: _conversations(found) for split, found in predicted.items()},
    }


def _conversations(predicted: PredictedSplit) -> list[dict[str, Any]]:
    """Returns the conversations of a split, with single utterances of the same conversation joined."""
    parts = [_conversation(predicted, i) for i in range(len(predicted.conversations))]
    joined = []
    for _, group in itertools.groupby(parts, key=lambda part: part["id"]):
        first, *others = group
        for other in others:
            _extend(first, other)
        joined.append(first)
    return joined


def _conversation(predicted: PredictedSplit, i: int) -> dict[str, Any]:
    """Returns the viewer's data on one conversation, with a list over utterances for each field."""
    conversation, predictions = predicted.conversations[i], predicted.predictions
    # In the order of the corpus; dictionaries come out of jitted functions sorted by key.
    weights = {
        modality: np.where(available, predictions.weights[modality][i], np.nan)
        for modality, available in conversation.available.items()
        if modality in predictions.weights
    }
    return {
        "id": conversation.id,
        "utterances": list(conversation.utterances),
        "speakers": list(conversation.speakers),
        "sentences": list(conversation.sentences),
        "gold": conversation.labels.tolist(),
        "predicted": predictions.probabilities[i].argmax(-1).tolist(),
        "probabilities": [_rounded(row) for row in predictions.probabilities[i]],
        "weights": {modality: _rounded(values) for modality, values in weights.items()},
        "attention": {token: _rounded(values[i]) for token, values in predictions.attention.items()},
    }


def _extend(part: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Appends the utterances of `other` to those of `part`, in place."""
    for name, values in part.items():
        if isinstance(values, dict):
            _extend(values, other[name])
        elif isinstance(values, list):
            values.extend(other[name])


def _rounded(values: np.ndarray) -> list[float | None]:
    """Returns the values with `DECIMALS` decimals; None in place of NaN and infinity, which JSON does not have."""
    return [round(value, DECIMALS) if np.isfinite(value) else None for value in values.tolist()]
