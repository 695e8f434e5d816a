"""Checks of the switches that several models have; each raises a ValueError that names the field and its range."""

from collections.abc import Collection, Sequence
from typing import Any

from jmer.batch import Batch
from jmer.modalities import MODALITIES


def check_modalities(modalities: Sequence[str]) -> None:
    """Raises ValueError unless `modalities` are some of text, audio and visual, each once."""
    unknown = [m for m in modalities if m not in MODALITIES]
    if unknown or not modalities or len(set(modalities)) < len(modalities):
        raise ValueError(f"modalities must be some of {', '.join(MODALITIES)}, each once, not {modalities}")


def check_at_least(module: Any, least: int, *fields: str) -> None:
    """Raises ValueError for the first of these fields of `module` that is below a number."""
    for name in fields:
        if getattr(module, name) < least:
            raise ValueError(f"{name} must be at least {least}, not {getattr(module, name)}")


def check_at_least_one(module: Any, *fields: str) -> None:
    """Raises ValueError for the first of these fields of `module` that is below 1."""
    check_at_least(module, 1, *fields)


def check_even(module: Any, *fields: str) -> None:
    """Raises ValueError for the first of these fields of `module` that is odd, though two directions share it."""
    for name in fields:
        if getattr(module, name) % 2:
            raise ValueError(f"{name} must be even, as two directions share it, not {getattr(module, name)}")


def check_rates(module: Any, *fields: str) -> None:
    """Raises ValueError for the first of these fields of `module` that is no rate of dropout."""
    for name in fields:
        if not 0 <= getattr(module, name) < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(module, name)}")


def check_gamma(gamma: float) -> None:
    """Raises ValueError if the γ of a focal loss is below 0."""
    if not gamma >= 0:
        raise ValueError(f"focal_gamma must be at least 0, not {gamma}")


def check_heads(heads: int, width: int, name: str) -> None:
    """Raises ValueError unless attention heads divide a width; `name` is that of the width's field."""
    if width % heads:
        raise ValueError(f"num_heads must divide {name}, but {heads} does not divide {width}")


def check_no_frames(batch: Batch, model: str) -> None:
    """Raises ValueError for a batch with frames, which `model` does not read."""
    if batch.frames is not None:
        raise ValueError(f"{model} reads one vector per utterance, not frames: average them, or choose another model")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises ValueError, naming the choices, if `value` is none of them."""
    if value not in choices:
        raise ValueError(f"unknown {name} '{value}'; choose one of {', '.join(choices)}")
