"""Robustness to modalities that are missing at test time."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis import robustness
from experiments.analysis.analysis import Analysis
from experiments.analysis.subjects import Subject
from jmer.data.corpus import Conversation

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def without(conversation: Conversation, modalities: Sequence[str], share: float, seed: int) -> Conversation:
    """Removes modalities from a random share of a conversation's utterances, and marks them as missing.

    The utterances depend on the seed and the conversation alone: those of a smaller share are among those of a larger
    one, and they are the same for all modalities.

    Args:
      conversation: features normalised.
      modalities: removed jointly.
      share: probability of each utterance, from 0 to 1.
      seed: of the random choice.
    """
    missing = robustness.generator(conversation, seed).random(len(conversation)) < share
    features = {m: _blank(conversation.features[m], missing) for m in modalities}
    available = {m: conversation.available[m] & ~missing for m in modalities}
    return dataclasses.replace(
        conversation,
        features={**conversation.features, **features},
        available={**conversation.available, **available},
    )


def _blank(values: np.ndarray | Sequence[np.ndarray], missing: np.ndarray):
    if isinstance(values, np.ndarray):
        return np.where(missing[:, None], np.float32(0), values)
    # The number of frames stays, since batches are padded to it; the model masks frames of unavailable utterances.
    return [np.zeros_like(frames) if lost else frames for frames, lost in zip(values, missing, strict=True)]


def conditions(modalities: Sequence[str]) -> list[tuple[tuple[str, ...], float]]:
    """Returns the removed modalities and their shares: each modality alone and, of three, each pair.

    A share of 1 of all modalities of a model is left out, since it leaves no input.
    """
    sizes = (1, 2) if len(modalities) == 3 else (1,)
    groups = [group for size in sizes for group in itertools.combinations(modalities, size)]
    return [(g, share) for g in groups for share in SHARES if share < 1 or len(g) < len(modalities)]


def measure(subjects: Sequence[Subject], split: str) -> pd.DataFrame:
    """Returns a row per seed, set of modalities and share, see `robustness.measure`."""
    return robustness.measure(subjects, split, "share", conditions(subjects[0].modalities), without)


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws the scores over the share, a line per set of modalities."""
    robustness.draw(frame, path, title, level="share", label="share of utterances without it", legend="missing")


def describe(frame: pd.DataFrame) -> list[str]:
    """Tabulates weighted F1 over the share."""
    text = robustness.describe(frame, level="share", shown=lambda share: f"{100 * share:g} %", how="missing {}")
    if frame["share"].max() < 1:
        text.append("A share of 100 % is left out, since it leaves this model no input.")
    return text


ANALYSIS = Analysis("Missing modalities", measure, draw, describe)
