"""Layout of the HTML report's charts: SVG coordinates, which the templates draw.

The origin is the upper left corner, and x and y are in units of the SVG's `viewBox`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from jmer.evaluation.calibration import Calibration
from jmer.evaluation.plots import STYLES

# Largest number of epochs whose points get markers.
MAX_MARKED_EPOCHS = 20


@dataclasses.dataclass(frozen=True)
class Chart:
    """Axes of a chart, which is as wide as a phone's screen so that its text has the size of the text around it."""

    x_ticks: Sequence["Tick"]
    y_ticks: Sequence["Tick"]
    width: float = 340
    left: float = 40
    right: float = 322
    top: float = 10


@dataclasses.dataclass(frozen=True)
class Tick:
    """A tick of an axis, with its label."""

    position: float
    text: str


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve with gaps where values are missing.

    Attributes:
      name: text in the legend.
      pieces: the curve's continuous parts, each a list of points `(x, y)`.
      marked: whether each point gets a marker.
      style: index of its colour and dashes, see `jmer.evaluation.plots.STYLES`.
    """

    name: str
    pieces: Sequence[Sequence[tuple[float, float]]]
    marked: bool
    style: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LineChart(Chart):
    """Curves over the epochs; `chosen` is the x of the chosen epoch, `bottom` the y of the horizontal axis."""

    label: str
    lines: Sequence[Line]
    chosen: float
    bottom: float = 190
    height: float = 220


@dataclasses.dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram; each bar is a pair of its upper end's y and its height."""

    x: float
    width: float
    accuracy: tuple[float, float]
    gap: tuple[float, float]
    count: tuple[float, float]
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityChart(Chart):
    """A reliability diagram above a histogram of the utterances.

    Attributes:
      bins: the bins that are not empty.
      max_count: the largest number of utterances in a bin, at its y in the histogram.
      bottom: y where the diagram ends.
      floor: y where the histogram ends.
      height: height of the chart.
    """

    bins: Sequence[Bin]
    max_count: Tick
    bottom: float = 230
    floor: float = 294
    height: float = 330


def line_chart(
    epochs: Sequence[int], series: Mapping[str, np.ndarray], *, label: str, chosen: int, logarithmic: bool = False
) -> LineChart:
    """Returns the layout of curves over the epochs.

    Args:
      epochs: `n` epochs in ascending order.
      series: name -> float `[n]`; values that are not finite make gaps.
      label: title of the vertical axis.
      chosen: the epoch to mark.
      logarithmic: whether the vertical axis is logarithmic, which needs positive values.
    """
    transform = np.log10 if logarithmic else np.asarray
    curves = {name: transform(values) for name, values in series.items()}
    pooled = np.concatenate(list(curves.values()))
    pooled = pooled[np.isfinite(pooled)] if np.isfinite(pooled).any() else np.array([0.0, 1.0])
    if logarithmic:
        levels = np.arange(np.floor(pooled.min()), np.ceil(pooled.max()) + 1)
    else:
        levels = np.asarray(MaxNLocator(5).tick_values(pooled.min(), pooled.max()))
    y = _scale(levels[0], levels[-1], LineChart.bottom, LineChart.top)
    x = _scale(epochs[0] - 0.5, epochs[-1] + 0.5, LineChart.left, LineChart.right)
    integers = MaxNLocator(6, integer=True).tick_values(epochs[0] - 0.5, epochs[-1] + 0.5)
    return LineChart(
        label=label,
        lines=[
            Line(name, _pieces(epochs, values, x, y), marked=len(epochs) <= MAX_MARKED_EPOCHS, style=i % len(STYLES))
            for i, (name, values) in enumerate(curves.items())
        ],
        x_ticks=[Tick(x(epoch), f"{epoch:g}") for epoch in integers if epochs[0] <= epoch <= epochs[-1]],
        y_ticks=[Tick(y(level), f"{10**level if logarithmic else level:g}") for level in levels],
        chosen=x(chosen),
    )


def reliability_chart(calibration: Calibration) -> ReliabilityChart:
    """Returns the layout of a reliability diagram; empty bins have no bars."""
    chart, max_count = ReliabilityChart, int(calibration.count.max())
    x, y = _scale(0, 1, chart.left, chart.right), _scale(0, 1, chart.bottom, chart.top)
    histogram = _scale(0, max_count, chart.floor, chart.bottom + 16)
    edges = np.linspace(0, 1, len(calibration.count) + 1)
    bins = []
    for i in np.flatnonzero(calibration.count):
        accuracy, confidence, count = calibration.accuracy[i], calibration.confidence[i], int(calibration.count[i])
        bins.append(
            Bin(
                x=x(edges[i]),
                width=round(x(edges[i + 1]) - x(edges[i]), 1),
                accuracy=_bar(y, 0, accuracy),
                gap=_bar(y, accuracy, confidence),
                count=_bar(histogram, 0, count),
                text=f"confidence {100 * confidence:.0f} %: {count} utterances, {100 * accuracy:.0f} % correct",
            )
        )
    quarters = np.linspace(0, 1, 5)
    return ReliabilityChart(
        bins=bins,
        x_ticks=[Tick(x(fraction), f"{100 * fraction:.0f} %") for fraction in quarters],
        y_ticks=[Tick(y(fraction), f"{100 * fraction:.0f} %") for fraction in quarters],
        max_count=Tick(histogram(max_count), str(max_count)),
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Returns the linear map of `low` to `start` and `high` to `end`, rounded to a tenth of a unit."""
    return lambda value: round(float(start + (value - low) / (high - low) * (end - start)), 1)


def _bar(y: Callable[[float], float], start: float, end: float) -> tuple[float, float]:
    """Returns the upper end's y and the height of a bar between two values."""
    top, bottom = sorted((y(start), y(end)))
    return top, round(bottom - top, 1)


def _pieces(
    epochs: Sequence[int], values: np.ndarray, x: Callable[[float], float], y: Callable[[float], float]
) -> list[list[tuple[float, float]]]:
    """Returns the points of each run of finite values."""
    runs = itertools.groupby(zip(epochs, values, strict=True), key=lambda point: bool(np.isfinite(point[1])))
    return [[(x(epoch), y(value)) for epoch, value in points] for finite, points in runs if finite]
