"""Scores over the strength of a perturbation of the input: missing or noisy modalities."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis.subjects import Subject
from experiments.plots import MARKERS, curve, make_figure, tidy, with_spread
from experiments.tables import markdown, percent
from jmer.data.corpus import Conversation
from jmer.evaluation.plots import STYLES, save

SCORES = {"weighted_f1": "weighted F1 (%)", "accuracy": "accuracy (%)"}
Perturbation = Callable[[Conversation, Sequence[str], float, int], Conversation]


def measure(
    subjects: Sequence[Subject],
    split: str,
    level: str,
    conditions: Iterable[tuple[Sequence[str], float]],
    perturb: Perturbation,
) -> pd.DataFrame:
    """Scores runs on a split with perturbed features.

    Args:
      subjects: of one configuration.
      split: of their corpus.
      level: name of the strength, a column.
      conditions: the perturbed modalities, and the strength; 0 = none.
      perturb: `perturb(conversation, modalities, strength, seed)` returns the perturbed conversation.

    Returns:
      A row per seed and condition: `seed`, `modalities` (separated by +), `level`, and the fractions `weighted_f1` and
      `accuracy`.
    """
    rows = []
    for subject in subjects:
        examples = subject.examples(split)
        unperturbed = subject.score(examples)
        for modalities, strength in conditions:
            perturbed = (perturb(c, modalities, strength, subject.seed) for c in examples)
            scores = subject.score(list(perturbed)) if strength else unperturbed
            condition = {"seed": subject.seed, "modalities": "+".join(modalities), level: strength}
            rows.append(condition | {name: getattr(scores, name) for name in SCORES})
    return pd.DataFrame(rows)


def generator(conversation: Conversation, seed: int) -> np.random.Generator:
    """Returns a random generator that depends on the seed and the conversation alone."""
    # With frames, each utterance is a conversation of its own with the same id.
    name = f"{conversation.id}\n{conversation.utterances[0]}"
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def draw(frame: pd.DataFrame, path: Path, title: str, *, level: str, label: str, legend: str) -> None:
    """Draws both scores over the level, a line per set of modalities; sets of one and of two in separate rows."""
    sizes = list(dict.fromkeys(map(_size, frame["modalities"])))
    figure = make_figure(10, 1.2 + 4 * len(sizes), with_spread(title, frame))
    panels = figure.subplots(len(sizes), len(SCORES), sharex=True, sharey="col", squeeze=False)
    groups = frame.groupby("modalities", sort=False)
    for (group, rows), style, marker in zip(groups, STYLES, MARKERS, strict=False):
        for axes, score in zip(panels[sizes.index(_size(group))], SCORES, strict=True):
            curve(axes, 100 * _by_seed(rows, level, score), *style, marker, group)
    for axes, name in zip(panels.T, SCORES.values(), strict=True):
        for panel in axes:
            tidy(panel, ylabel=name, xlabel=label if panel is axes[-1] else "")
    for axes in panels[:, 0]:
        axes.legend(title=legend, loc="lower left", fontsize=9, framealpha=0.7)
    save(figure, path)


def describe(frame: pd.DataFrame, *, level: str, shown: Callable[[float], str], how: str) -> list[str]:
    """Tabulates weighted F1, and names the single modality with the largest loss.

    Args:
      frame: what `measure` returned.
      level: name of the strength.
      shown: formats a strength as a heading.
      how: format string that describes the perturbation of a modality.
    """
    rows, losses = [], {}
    for group, part in frame.groupby("modalities", sort=False):
        table = _by_seed(part, level, "weighted_f1")
        change = table.iloc[:, -1] - table.iloc[:, 0]
        if "+" not in group:
            losses[group] = change
        cells = {shown(strength): percent(values) for strength, values in table.items()}
        rows.append({"modalities": group} | cells | {"last − first": percent(change)})
    worst = min(losses, key=lambda modality: losses[modality].mean())
    most = shown(frame[level].max())
    if losses[worst].mean() < 0:
        verdict = f"{how.format(worst)} ({most}) has the largest effect: {percent(losses[worst])} points"
    else:
        verdict = f"{how.format('any')} ({most}) does not lower the mean"
    return [markdown(rows), f"Weighted F1 in percent. Among single modalities, {verdict}."]


def _size(group: str) -> int:
    return group.count("+") + 1


def _by_seed(rows: pd.DataFrame, level: str, score: str) -> pd.DataFrame:
    return rows.pivot(index="seed", columns=level, values=score)
