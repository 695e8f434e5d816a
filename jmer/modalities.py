"""The modalities of an utterance."""

MODALITIES = ("text", "audio", "visual")
"""Their names, in the order of reports and cards."""
