"""Figures of a run, legible in greyscale print and to colour-blind readers."""

import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jmer.evaluation.calibration import Calibration
from jmer.files import atomically
from jmer.selection import Selection

# (colour, line style) per curve: Okabe and Ito's palette without yellow; the styles distinguish curves in greyscale.
STYLES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#56B4E9", (0, (5, 1))),
    ("#E69F00", (0, (3, 1, 1, 1))),
    ("#000000", (0, (1, 1))),
)
DOTS_PER_INCH = 150
LETTERS_PER_INCH = 11
"""Of a title, about."""
LONGEST_LABEL = 40

History: TypeAlias = Sequence[Mapping[str, Any]]
"""One mapping per epoch: `epoch`, counted from 1, and losses and scores by name, see `plot_learning_curves`."""


def plot_confusion(confusion: npt.ArrayLike, emotions: Sequence[str], path: str | Path, title: str) -> None:
    """Draws a confusion matrix with counts, and with colours and percentages normalized per gold emotion.

    Args:
      confusion: counts `[C, C]`, gold emotions in rows, predicted ones in columns.
      emotions: names of the `C` emotions.
      path: image file to write; its suffix gives the format (`.png`, `.svg`, `.pdf`).
      title: title of the figure.
    """
    counts = np.asarray(confusion)
    support = counts.sum(1)
    recall = np.divide(counts, support[:, None], out=np.zeros(counts.shape), where=support[:, None] > 0)
    size = len(emotions)
    figure = Figure(figsize=(3.2 + 0.8 * size, 1.9 + 0.7 * size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(recall, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        percentage = f"{100 * recall[row, column]:.1f}%" if support[row] else "–"
        text = f"{counts[row, column]}\n{percentage}"
        colour = "white" if recall[row, column] > 0.65 else "black"
        weight = "bold" if row == column else "normal"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9, fontweight=weight)
    names = [name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…" for name in emotions]
    axes.set_xticks(range(size), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), [f"{name} ({n})" for name, n in zip(names, support, strict=True)])
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted", ylabel="gold (utterances)")
    _set_title(figure, axes, title)
    figure.colorbar(image, label="fraction of the gold emotion", ticks=np.linspace(0, 1, 5), format=PercentFormatter(1))
    save(figure, path)


def plot_learning_curves(history: History, path: str | Path, *, chosen: int, title: str, selection: Selection) -> None:
    """Draws the loss terms of each epoch, and the metric that chooses one.

    Args:
      history: one mapping per epoch with the key `epoch` and any of `train/loss`, its terms `train/loss_<term>`,
        `validation/loss` and `<split>/<metric>`; None = not finite.
      path: image file to write; its suffix gives the format.
      chosen: the epoch whose scores the run reports, which is marked.
      title: title of the figure.
      selection: names the metric.
    """
    losses, scores = loss_series(history), score_series(history, selection.metric)
    figure = Figure(figsize=(10, 5), layout=ConstrainedLayoutEngine(wspace=0.06))
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    _draw(left, epochs, losses, "loss")
    if spans_decades(losses.values()):
        left.set_yscale("log")
        # The usual formatter writes powers of ten as mathematics, which `save` does not read.
        left.yaxis.set_major_formatter("{x:g}")
    _draw(right, epochs, scores, f"{selection.title} (%)")
    for axes in (left, right):
        axes.axvline(chosen, color="0.45", linewidth=1, linestyle=(0, (6, 4)), label=f"chosen epoch ({chosen})")
        # Below the axes, where it hides no curve.
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncols=2, fontsize=9, frameon=False)
    save(figure, path)


def loss_series(history: History) -> dict[str, np.ndarray]:
    """Returns the losses of a history, see `plot_learning_curves`: name for a legend -> float64, one per epoch."""
    found = _series(history, lambda name: name == "validation/loss" or name.startswith("train/loss"))
    return {_loss_name(name): values for name, values in found.items()}


def score_series(history: History, metric: str) -> dict[str, np.ndarray]:
    """Returns a metric of a history in percent: split -> float64, one per epoch."""
    found = _series(history, lambda name: name.endswith(f"/{metric}"))
    return {name.split("/")[0]: 100 * values for name, values in found.items()}


def spans_decades(series: Iterable[np.ndarray]) -> bool:
    """Whether the finite values are all positive and differ by more than a factor of 30, so need a logarithmic axis."""
    shown = np.array([value for values in series for value in values if np.isfinite(value)])
    return bool(shown.size and shown.min() > 0 and shown.max() > 30 * shown.min())


def plot_reliability(calibration: Calibration, path: str | Path, title: str) -> None:
    """Draws a reliability diagram, accuracy against confidence per bin, above a histogram (Guo et al. 2017, Fig. 1).

    Args:
      calibration: calibration on one split.
      path: image file to write; its suffix gives the format.
      title: title of the figure, to which the calibration errors are added.
    """
    bins = len(calibration.count)
    filled = calibration.count > 0
    centres = ((np.arange(bins) + 0.5) / bins)[filled]
    accuracy, confidence = calibration.accuracy[filled], calibration.confidence[filled]
    figure = Figure(figsize=(5.2, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bar = {"width": 1 / bins, "edgecolor": "black", "linewidth": 0.6}
    above.bar(centres, accuracy, color=STYLES[0][0], label="accuracy", **bar)
    gap = {"color": "none", "hatch": "////", "width": 1 / bins, "edgecolor": STYLES[1][0], "linewidth": 0.8}
    above.bar(centres, confidence - accuracy, bottom=accuracy, label="gap to confidence", **gap)
    above.plot([0, 1], [0, 1], color="0.45", linewidth=1, linestyle=(0, (6, 4)), label="perfectly calibrated")
    below.bar(centres, calibration.count[filled], color=STYLES[4][0], **bar)
    expected, largest = (f"{100 * error:.1f} %" for error in (calibration.expected_error, calibration.maximum_error))
    _set_title(figure, above, f"{title}\nexpected calibration error {expected}, maximum {largest}")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.legend(loc="upper left", fontsize=9, frameon=False)
    below.set(xlabel="confidence (probability of the predicted emotion)", ylabel="utterances")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in (above, below):
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _series(history: History, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Returns the values whose names are wanted: name -> float64, one per epoch, NaN where missing."""
    names = dict.fromkeys(name for row in history for name in row if wanted(name))
    return {name: np.array([row.get(name) for row in history], np.float64) for name in names}


def _loss_name(name: str) -> str:
    return name.removeprefix("train/loss_") if name.startswith("train/loss_") else name.replace("/", " ")


def _set_title(figure: Figure, axes: Axes, title: str) -> None:
    """Sets a title in lines that are as wide as the figure; Matplotlib's own wrapping reads mathematics."""
    columns = int(LETTERS_PER_INCH * figure.get_figwidth())
    axes.set_title("\n".join(textwrap.fill(line, columns) for line in title.split("\n")), fontsize=11)


def _draw(axes: Axes, epochs: Sequence[int], series: Mapping[str, np.ndarray], label: str) -> None:
    """Draws curves over the epochs; the points of few epochs get markers."""
    for (name, values), (colour, style) in zip(series.items(), STYLES * len(series), strict=False):
        marker = "o" if len(epochs) <= 20 else None
        axes.plot(
            epochs, values, color=colour, linestyle=style, marker=marker, markersize=3.5, linewidth=1.6, label=name
        )
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure atomically; the suffix of `path` gives the format.

    No text is read as mathematics, which names of emotions between dollars would be; a letter that the font lacks
    becomes a box.
    """
    # The context is for labels that are made when the figure is drawn.
    with atomically(path) as temporary, rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
