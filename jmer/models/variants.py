"""Variants that several models have, under the names that a colon selects."""

from collections.abc import Mapping
from typing import Any

MODALITY_SUBSETS: Mapping[str, Mapping[str, Any]] = {
    "text": {"model.modalities": ("text",)},
    "audio": {"model.modalities": ("audio",)},
    "visual": {"model.modalities": ("visual",)},
    "text_visual": {"model.modalities": ("text", "visual")},
    "text_audio": {"model.modalities": ("text", "audio")},
    "audio_visual": {"model.modalities": ("audio", "visual")},
}
"""Every proper subset of the three modalities."""
