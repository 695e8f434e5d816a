"""Variants that several models have, under the names that a colon selects."""

MODALITY_SUBSETS = {
    "text": {"model.modalities": ("text",)},
    "audio": {"model.modalities": ("audio",)},
    "visual": {"model.modalities": ("visual",)},
    "text_visual": {"model.modalities": ("text", "visual")},
    "text_audio": {"model.modalities": ("text", "audio")},
    "audio_visual": {"model.modalities": ("audio", "visual")},
}
"""Every proper subset of the three modalities."""
