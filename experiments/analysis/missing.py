"""How scores fall when modalities go missing at test time."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis import curves
from experiments.analysis.analysis import Analysis
from experiments.analysis.runs import Run
from jmer.data.corpus import Conversation

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def without(conversation: Conversation, modalities: Sequence[str], share: float, seed: int) -> Conversation:
    """Takes modalities from a random share of a conversation's utterances, as a reader marks what is missing.

    The draw depends on the seed and the conversation: with a larger share the same utterances lose theirs, and more;
    and they are the same ones whatever the modalities are.

    Args:
      conversation: features normalised.
      modalities: to be taken; several go together.
      share: chance of each utterance, from 0 to 1.
      seed: of the draw.
    """
    gone = curves.generator(conversation, seed).random(len(conversation)) < share
    features = {m: _blank(conversation.features[m], gone) for m in modalities}
    available = {m: conversation.available[m] & ~gone for m in modalities}
    return dataclasses.replace(
        conversation,
        features={**conversation.features, **features},
        available={**conversation.available, **available},
    )


def _blank(values: np.ndarray | Sequence[np.ndarray], gone: np.ndarray):
    if isinstance(values, np.ndarray):
        return np.where(gone[:, None], np.float32(0), values)
    # The number of frames stays, since batches are padded to it; the model leaves out frames of what is unavailable.
    return [np.zeros_like(frames) if lost else frames for frames, lost in zip(values, gone, strict=True)]


def conditions(modalities: Sequence[str]) -> list[tuple[tuple[str, ...], float]]:
    """Returns which modalities are taken and from what share: each alone and, of three, each pair.

    A share of 1 of all that the model reads is left out: a prediction from nothing says nothing.
    """
    sizes = (1, 2) if len(modalities) == 3 else (1,)
    groups = [group for size in sizes for group in itertools.combinations(modalities, size)]
    return [(g, share) for g in groups for share in SHARES if share < 1 or len(g) < len(modalities)]


def measure(runs: Sequence[Run], split: str) -> pd.DataFrame:
    """Returns a row per seed, set of modalities and share, see `curves.measure`."""
    return curves.measure(runs, split, "share", conditions(runs[0].modalities), without)


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws the scores over the share, a line per set of modalities."""
    curves.draw(frame, path, title, level="share", label="share of utterances that lack it", legend="missing")


def describe(frame: pd.DataFrame) -> list[str]:
    """Tabulates weighted F1 over the share."""
    text = curves.describe(frame, level="share", shown=lambda share: f"{100 * share:g} %", how="going without {}")
    if frame["share"].max() < 1:
        text.append("A share of 100 % is left out: nothing would be left of an utterance of this model.")
    return text


ANALYSIS = Analysis("Missing modalities", measure, draw, describe)
