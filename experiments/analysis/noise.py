"""Robustness to noise in the features of one modality at test time."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis import robustness
from experiments.analysis.analysis import Analysis
from experiments.analysis.subjects import Subject
from jmer.data.corpus import Conversation
from jmer.data.normalization import Standardization

DEVIATIONS = (0.0, 0.25, 0.5, 1.0, 2.0)


def noisy(
    conversation: Conversation,
    modalities: Sequence[str],
    deviation: float,
    seed: int,
    *,
    statistics: Mapping[str, Standardization],
) -> Conversation:
    """Adds Gaussian noise to normalised features of available utterances; the deviation only scales the noise.

    Columns that are constant in training stay zero, since they are for every corpus.

    Args:
      conversation: features normalised.
      modalities: whose features receive noise.
      deviation: of the noise, in standard deviations of each feature.
      seed: of the noise, together with the conversation's id.
      statistics: that the features were normalised with.
    """
    rng = robustness.generator(conversation, seed)
    features = dict(conversation.features)
    for m in modalities:
        if conversation.has_frames:
            features[m] = [frames + _noise(rng, frames, deviation, statistics[m]) for frames in features[m]]
        else:
            noise = _noise(rng, features[m], deviation, statistics[m])
            features[m] = np.where(conversation.available[m][:, None], features[m] + noise, features[m])
    return dataclasses.replace(conversation, features=features)


def _noise(rng: np.random.Generator, values: np.ndarray, deviation: float, statistics: Standardization) -> np.ndarray:
    return np.where(statistics.dropped, 0, np.float32(deviation) * rng.standard_normal(values.shape, np.float32))


def measure(subjects: Sequence[Subject], split: str) -> pd.DataFrame:
    """Returns a row per seed, modality and deviation, see `robustness.measure`."""
    conditions = [((m,), deviation) for m in subjects[0].modalities for deviation in DEVIATIONS]
    perturb = functools.partial(noisy, statistics=subjects[0].predictor.normalization)
    return robustness.measure(subjects, split, "deviation", conditions, perturb)


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws the scores over the deviation, a line per modality."""
    label = "standard deviation of the noise (features have 1)"
    robustness.draw(frame, path, title, level="deviation", label=label, legend="noise in")


def describe(frame: pd.DataFrame) -> list[str]:
    """Tabulates weighted F1 over the deviation."""
    return robustness.describe(frame, level="deviation", shown=lambda d: f"sd {d:g}", how="noise in {}")


def applies(subject: Subject) -> str:
    """Requires normalised features, in whose standard deviations noise is measured."""
    if subject.run.config.data.normalization != "standard":
        return "features are not normalised (data.normalization), so the noise has no unit"
    return ""


ANALYSIS = Analysis("Noisy modalities", measure, draw, describe, applies)
