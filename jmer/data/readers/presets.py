"""Column mappings of known tables, by name; `jmer.data.readers.table` describes the fields."""

from typing import Any

from jmer.data.emotions import IEMOCAP4, IEMOCAP6, MELD

IEMOCAP_COLUMNS = {
    "conversation": "dialogue",
    "speaker": "speaker",
    "label": "label",
    "split": "split",
    "utterance": "utt_id",
    "text": "text_minilm384",
    "audio": "audio19",
}

# IEMOCAP has no order column: start times are not monotonic where speakers overlap.
PRESETS: dict[str, dict[str, Any]] = {
    "iemocap6": IEMOCAP_COLUMNS | {"emotions": IEMOCAP6},
    "iemocap4": IEMOCAP_COLUMNS | {"emotions": IEMOCAP4},
    "mosi": {
        "conversation": "video",
        "speaker": "video",  # one speaker per video
        "order": "utt",
        "label": "label2",
        "emotions": ("negative", "positive"),
        "split": "split",
        "utterance": "utt_id",
        "text": "text_minilm384",  # not text100, whose encoder was trained on the labels
        "audio": "audio73",
        "visual": "visual100",
    },
    "meld": {
        "conversation": "dialogue",
        "ids_per_split": True,
        "speaker": "speaker",
        "label": "emotion",
        "emotions": MELD,
        "split": "split",
        "utterance": "utt",
        "sentence": "sentence",
        "text": "text_minilm384",
    },
}
