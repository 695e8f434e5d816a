"""Pictures of a run, readable in grey print and by colour-blind people."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jmer.evaluation.calibration import Calibration
from jmer.files import atomically

# Okabe and Ito's colours without the yellow, each with a line style of its own for grey print.
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


def plot_confusion(confusion: np.ndarray, names: Sequence[str], path: str | Path, title: str) -> None:
    """Draws a confusion matrix: colours and percentages are shares of the gold emotion's utterances, below the counts.

    Args:
      confusion: counts `[C, C]`, rows gold, columns predicted.
      names: names of the `C` emotions.
      path: picture file to write; its suffix gives the format (`.png`, `.svg`, `.pdf`).
      title: heading.
    """
    confusion = np.asarray(confusion)
    support = confusion.sum(1)
    shares = np.divide(confusion, support[:, None], out=np.zeros(confusion.shape), where=support[:, None] > 0)
    count = len(names)
    figure = Figure(figsize=(3.2 + 0.8 * count, 1.9 + 0.7 * count), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(confusion.shape):
        known = support[row] > 0
        text = f"{confusion[row, column]}\n{100 * shares[row, column]:.1f}%" if known else "0\n–"
        colour = "white" if shares[row, column] > 0.65 else "black"
        weight = "bold" if row == column else "normal"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9, fontweight=weight)
    axes.set_xticks(range(count), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), [f"{name} ({n})" for name, n in zip(names, support, strict=True)])
    axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted", ylabel="gold (utterances)")
    axes.set_title(title, fontsize=11, wrap=True)
    figure.colorbar(image, label="share of the gold emotion", ticks=np.linspace(0, 1, 5), format=PercentFormatter(1))
    save(figure, path)


def plot_learning_curves(
    history: Sequence[Mapping[str, float | None]], path: str | Path, *, chosen: int, title: str
) -> None:
    """Draws loss terms and weighted F1 over the epochs.

    Args:
      history: one mapping per epoch with `epoch`, and as far as there are any: `train/loss` and its terms
        `train/loss_<term>`, `validation/loss`, `<split>/weighted_f1`. None = not finite.
      path: picture file to write; its suffix gives the format.
      chosen: the epoch whose scores the run reports; marked.
      title: heading.
    """
    losses, scores = loss_series(history), score_series(history)
    figure = Figure(figsize=(10, 5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    _draw(left, epochs, losses, "loss")
    if spans_decades(losses.values()):
        left.set_yscale("log")
    _draw(right, epochs, scores, "weighted F1 (%)")
    for axes in (left, right):
        axes.axvline(chosen, color="0.45", linewidth=1, linestyle=(0, (6, 4)), label=f"chosen epoch ({chosen})")
        # Below the axes, where it covers no curve.
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncols=2, fontsize=9, frameon=False)
    save(figure, path)


def loss_series(history: Sequence[Mapping[str, float | None]]) -> dict[str, np.ndarray]:
    """Returns the losses of a history as `plot_learning_curves` takes it: name for a legend -> a value per epoch."""
    found = _series(history, lambda name: name == "validation/loss" or name.startswith("train/loss"))
    return {_loss_name(name): values for name, values in found.items()}


def score_series(history: Sequence[Mapping[str, float | None]]) -> dict[str, np.ndarray]:
    """Returns the weighted F1 in percent of a history: split -> a value per epoch."""
    found = _series(history, lambda name: name.endswith("/weighted_f1"))
    return {name.split("/")[0]: 100 * values for name, values in found.items()}


def spans_decades(series: Iterable[np.ndarray]) -> bool:
    """Whether the values, NaN aside, are positive and so far apart that only a logarithmic axis shows them all."""
    shown = np.array([value for values in series for value in values if np.isfinite(value)])
    return bool(shown.size and shown.min() > 0 and shown.max() > 30 * shown.min())


def plot_reliability(calibration: Calibration, path: str | Path, title: str) -> None:
    """Draws accuracy over confidence, bin by bin, and how many utterances each has (Guo et al. 2017, Fig. 1).

    Args:
      calibration: of one split.
      path: picture file to write; its suffix gives the format.
      title: heading; the calibration errors are added below it.
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
    above.set_title(f"{title}\nexpected calibration error {expected}, maximum {largest}", fontsize=11, wrap=True)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.legend(loc="upper left", fontsize=9, frameon=False)
    below.set(xlabel="confidence (probability of the predicted emotion)", ylabel="utterances")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in (above, below):
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _series(history: Sequence[Mapping], wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in history for name in row if wanted(name))
    return {name: np.array([row.get(name) for row in history], np.float64) for name in names}


def _loss_name(name: str) -> str:
    return name.removeprefix("train/loss_") if name.startswith("train/loss_") else name.replace("/", " ")


def _draw(axes: Axes, epochs: Sequence[int], series: Mapping[str, np.ndarray], label: str) -> None:
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
    """Writes a figure, whole or not at all; the suffix of `path` gives the format."""
    with atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
