"""Figures of the studies: bars, curves and histograms over seeds, in one style, saved as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jmer.evaluation import mean_and_deviation
from jmer.evaluation.plots import STYLES, save

SUFFIXES = (".png", ".svg")
# As many markers as `STYLES` has colours.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++")


def make_figure(width: float, height: float, title: str) -> Figure:
    """Returns an empty figure with a title; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def save_all(figure: Figure, stem: Path) -> str:
    """Saves a figure as PNG and SVG, and returns the file name of the PNG.

    Args:
      figure: drawn.
      stem: path without suffix; its name may contain dots.
    """
    for path in picture_paths(stem):
        save(figure, path)
    return picture_paths(stem)[0].name


def picture_paths(stem: Path) -> list[Path]:
    """Returns the paths of a figure's files, the PNG first."""
    return [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]


def with_spread(title: str, frame: pd.DataFrame) -> str:
    """Adds the meaning of bands and error bars to a title if `frame` has several seeds."""
    return f"{title}; mean ± sd over seeds" if frame["seed"].nunique() > 1 else title


def tidy(axes: Axes, *, grid: str = "both", **labels: str) -> None:
    """Sets labels, draws grid lines of `grid` (`both` or `y`) behind the data, and hides the upper and right spines."""
    axes.set(**labels)
    axes.grid(axis=grid, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def curve(axes: Axes, table: pd.DataFrame, colour: str, style: Any, marker: str, label: str) -> None:
    """Draws the mean over seeds (rows) along the columns, with a band of ± one sample standard deviation."""
    mean, deviation = table.mean(), table.std()
    axes.plot(table.columns, mean, color=colour, linestyle=style, marker=marker, markersize=4.5, label=label)
    axes.fill_between(table.columns, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)


def histogram(
    axes: Axes, samples: Sequence[Sequence[float]], edges: np.ndarray, colour: str, style: Any, label: str
) -> None:
    """Draws the mean over seeds of each bin's share in percent, with a band of ± one sample standard deviation.

    Args:
      axes: drawn on.
      samples: the values of each seed; none = nothing is drawn.
      edges: of the bins, ascending.
      colour, style, label: of the line.
    """
    if not samples:
        return
    shares = pd.DataFrame([100 * np.histogram(values, edges)[0] / len(values) for values in samples])
    mean, deviation = shares.mean().to_numpy(), shares.std().fillna(0).to_numpy()
    axes.stairs(mean, edges, baseline=None, color=colour, linestyle=style, linewidth=1.6, label=label)
    axes.stairs(mean + deviation, edges, baseline=mean - deviation, color=colour, alpha=0.15, fill=True)


def bars(axes: Axes, values: Mapping[str, np.ndarray], colour: str) -> None:
    """Draws a bar per name from 0 to the mean over seeds, with ± one sample standard deviation of several seeds."""
    table = pd.DataFrame(values)
    axes.bar(range(len(table.columns)), table.mean(), color=colour, edgecolor="black", linewidth=0.8, width=0.6)
    if len(table) > 1:
        axes.errorbar(range(len(table.columns)), table.mean(), table.std(), fmt="none", ecolor="black", capsize=4)
    axes.set_xticks(range(len(table.columns)), table.columns)
    axes.set_ylim(bottom=0)


def grouped_bars(axes: Axes, groups: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> None:
    """Draws grouped bars of fractions in percent: mean, sample standard deviation, and a dot per seed.

    Args:
      axes: drawn on.
      groups: group -> series -> the value of each seed.
      label: of the vertical axis.
    """
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    width = 0.8 / len(series)
    for number, name in enumerate(series):
        colour, hatch = STYLES[number % len(STYLES)][0], HATCHES[number % len(HATCHES)]
        legend = name
        for place, values in enumerate(groups.values()):
            if name not in values:
                continue
            percent = [100 * value for value in values[name]]
            mean, deviation = mean_and_deviation(percent)
            x = place + (number - (len(series) - 1) / 2) * width
            error = {"yerr": np.nan_to_num(deviation), "capsize": 3, "ecolor": "0.2"}
            axes.bar(x, mean, 0.9 * width, color=colour, hatch=hatch, edgecolor="white", label=legend, **error)
            axes.plot([x] * len(percent), percent, "o", color="0.2", markersize=2.5)
            plate = {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
            text = {"ha": "center", "va": "bottom", "fontsize": 8, "color": "white", "fontweight": "bold"}
            axes.text(x, 1.5, f"{mean:.1f}", bbox=plate, **text)
            # One entry per series in the legend.
            legend = None
    axes.set_xticks(range(len(groups)), list(groups), fontsize=9)
    tidy(axes, grid="y", ylabel=label)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=len(series), fontsize=9, frameon=False)
