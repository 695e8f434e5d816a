"""The mean of each sequence of frames, for models that read one vector per utterance."""

import argparse
from collections.abc import Mapping, Sequence

from jmer.data.corpus import Conversation
from jmer.data.frames import mean_pooled

NOTE = " Features: the mean over the frames of each utterance."


def add_pool_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--pool`."""
    parser.add_argument(
        "--pool",
        action="store_true",
        help="take the mean of each sequence, without its padding: one vector per utterance, which all models read, "
        "instead of frames",
    )


def pooled(splits: Mapping[str, Sequence[Conversation]]) -> dict[str, list[Conversation]]:
    """Returns the conversations with the means of their frames."""
    return {split: mean_pooled(conversations) for split, conversations in splits.items()}
