"""Where the lines and bars of the HTML report's charts lie: plain numbers, which its template draws as SVG.

Coordinates are those of an SVG with the given width and height, its origin above on the left.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from jmer.evaluation.calibration import Calibration
from jmer.evaluation.plots import STYLES

# With few epochs, their points are marked.
MARKED = 20


@dataclasses.dataclass(frozen=True)
class Chart:
    """What every chart has: where its plot lies. It is as wide as a phone, where its text is as large as around it."""

    x_ticks: Sequence["Tick"]
    y_ticks: Sequence["Tick"]
    width: float = 340
    left: float = 40
    right: float = 322
    top: float = 10


@dataclasses.dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    position: float
    text: str


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve; it is interrupted where a value is missing.

    Attributes:
      name: for the legend.
      pieces: of the curve, each a list of points.
      marked: whether each point gets a dot.
      style: number of its colour and dashes.
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
    """One bin of a reliability diagram; a pair is where a bar begins, from above, and how tall it is."""

    x: float
    width: float
    accuracy: tuple[float, float]
    gap: tuple[float, float]
    count: tuple[float, float]
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityChart(Chart):
    """Accuracy over confidence down to `bottom`, and from there to `floor` how many utterances there are."""

    bins: Sequence[Bin]
    most: Tick
    bottom: float = 230
    floor: float = 294
    height: float = 330


def line_chart(
    epochs: Sequence[int], series: Mapping[str, np.ndarray], *, label: str, chosen: int, logarithmic: bool = False
) -> LineChart:
    """Lays out curves over the epochs.

    Args:
      epochs: `n` numbers of epochs, rising.
      series: name -> `n` values; those that are not finite are left out.
      label: what the values are.
      chosen: the epoch to mark.
      logarithmic: whether the vertical axis is; all values must be positive then.
    """
    transform = np.log10 if logarithmic else np.asarray
    values = {name: transform(found) for name, found in series.items()}
    every = np.concatenate(list(values.values()))
    every = every[np.isfinite(every)] if np.isfinite(every).any() else np.array([0.0, 1.0])
    if logarithmic:
        levels = np.arange(np.floor(every.min()), np.ceil(every.max()) + 1)
    else:
        levels = MaxNLocator(5).tick_values(every.min(), every.max())
    y = _scale(levels[0], levels[-1], LineChart.bottom, LineChart.top)
    x = _scale(epochs[0] - 0.5, epochs[-1] + 0.5, LineChart.left, LineChart.right)
    whole = MaxNLocator(6, integer=True).tick_values(epochs[0] - 0.5, epochs[-1] + 0.5)
    return LineChart(
        label=label,
        lines=[
            Line(name, _pieces(epochs, found, x, y), marked=len(epochs) <= MARKED, style=i % len(STYLES))
            for i, (name, found) in enumerate(values.items())
        ],
        x_ticks=[Tick(x(epoch), f"{epoch:g}") for epoch in whole if epochs[0] <= epoch <= epochs[-1]],
        y_ticks=[Tick(y(level), f"{10**level if logarithmic else level:g}") for level in levels],
        chosen=x(chosen),
    )


def reliability_chart(calibration: Calibration) -> ReliabilityChart:
    """Lays out a reliability diagram; bins without an utterance have no bar."""
    chart, most = ReliabilityChart, int(calibration.count.max())
    x, y = _scale(0, 1, chart.left, chart.right), _scale(0, 1, chart.bottom, chart.top)
    amount = _scale(0, most, chart.floor, chart.bottom + 16)
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
                count=_bar(amount, 0, count),
                text=f"confidence {100 * confidence:.0f} %: {count} utterances, {100 * accuracy:.0f} % right",
            )
        )
    quarters = np.linspace(0, 1, 5)
    return ReliabilityChart(
        bins=bins,
        x_ticks=[Tick(x(share), f"{100 * share:.0f} %") for share in quarters],
        y_ticks=[Tick(y(share), f"{100 * share:.0f} %") for share in quarters],
        most=Tick(amount(most), str(most)),
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Returns the function that takes `low` to `start` and `high` to `end`, rounded to what an eye can see."""
    return lambda value: round(float(start + (value - low) / (high - low) * (end - start)), 1)


def _bar(y: Callable[[float], float], one: float, other: float) -> tuple[float, float]:
    top, bottom = sorted((y(one), y(other)))
    return top, round(bottom - top, 1)


def _pieces(epochs: Sequence[int], values: np.ndarray, x: Callable, y: Callable) -> list[list[tuple[float, float]]]:
    pieces, following = [], False
    for epoch, value in zip(epochs, values, strict=True):
        if np.isfinite(value):
            if not following:
                pieces.append([])
            pieces[-1].append((x(epoch), y(value)))
        following = np.isfinite(value)
    return pieces
