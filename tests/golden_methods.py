"""Numbers of published ways of training, which are no models: what a file in `golden/` holds, as jmer's objects.

A file is recognised by what it holds, as those of models are (`golden.py`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jmer.data.corpus import Conversation
from jmer.data.curriculum import Curriculum, make_curriculum

KEYS = {"curriculum": {"weighted_shifts", "used_in_epoch"}, "modulation": {"coefficients", "balance_gradient"}}
"""Method -> names that its files alone have."""


def method_of(path: str | Path) -> str:
    """Returns the method whose numbers a file has; empty for a model's."""
    with np.load(path) as file:
        return next((method for method, keys in KEYS.items() if keys <= set(file.files)), "")


def conversations_of(arrays: Mapping[str, np.ndarray]) -> list[Conversation]:
    """Returns the conversations of a file of the improved curriculum, without features."""
    return [
        Conversation(
            id=f"{number}",
            utterances=[f"{i}" for i in range(mask.sum())],
            speakers=[f"{speaker}" for speaker in speakers[mask]],
            labels=labels[mask].astype(np.int32),
            features={},
            available={},
            sentences=[""] * mask.sum(),
        )
        for number, (labels, speakers, mask) in enumerate(
            zip(arrays["labels"], arrays["speakers"], arrays["mask"].astype(bool), strict=True)
        )
    ]


def curriculum_of(arrays: Mapping[str, np.ndarray], measure: str = "weighted_shift") -> Curriculum:
    """Returns the curriculum with the settings of a file."""
    names = ("buckets", "scale", "offset")
    section = {name: arrays[name].item() for name in names} | {"epochs_per_bucket": 1, "angles": (), "measure": measure}
    found = make_curriculum(section, arrays["emotions"].tolist())
    assert found is not None
    return found
