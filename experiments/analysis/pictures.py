"""What the pictures of analyses have in common."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# As many as `jmer.evaluation.plots.STYLES` has colours.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def make_figure(width: float, height: float, title: str) -> Figure:
    """Returns an empty figure with a heading; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def with_spread(title: str, frame: pd.DataFrame) -> str:
    """Adds to a heading what bands and error bars are, where `frame` has several seeds."""
    return f"{title}; mean ± sd over seeds" if frame["seed"].nunique() > 1 else title


def tidy(axes: Axes, **labels: str) -> None:
    """Labels axes, and takes away what distracts."""
    axes.set(**labels)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def curve(axes: Axes, table: pd.DataFrame, colour: str, style, marker: str, label: str) -> None:
    """Draws the mean over seeds (rows) along the columns, and a band of ± one sample standard deviation."""
    mean, deviation = table.mean(), table.std()
    axes.plot(table.columns, mean, color=colour, linestyle=style, marker=marker, markersize=4.5, label=label)
    axes.fill_between(table.columns, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)


def bars(axes: Axes, values: Mapping[str, np.ndarray], colour: str) -> None:
    """Draws a bar per name, of numbers from 0: the mean over seeds, ± one sample standard deviation of several."""
    table = pd.DataFrame(values)
    axes.bar(range(len(table.columns)), table.mean(), color=colour, edgecolor="black", linewidth=0.8, width=0.6)
    if len(table) > 1:
        axes.errorbar(range(len(table.columns)), table.mean(), table.std(), fmt="none", ecolor="black", capsize=4)
    axes.set_xticks(range(len(table.columns)), table.columns)
    axes.set_ylim(bottom=0)
