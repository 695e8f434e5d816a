"""Curriculum of MultiDAG+CL (Nguyen et al., 2024): conversations whose emotions shift least are trained on first."""

from collections.abc import Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation


def difficulty(conversation: Conversation) -> float:
    """Returns (emotion shifts + speakers) / (utterances + speakers), between 0 and 1.

    An emotion shift is a change between two consecutive utterances of the same speaker. Utterances without a label are
    skipped there, so that the labelled ones around them are compared; they count as utterances.
    """
    last: dict[str, int] = {}
    shifts = 0
    for speaker, label in zip(conversation.speakers, conversation.labels.tolist(), strict=True):
        if label != UNLABELLED:
            shifts += last.get(speaker, label) != label
            last[speaker] = label
    speakers = len(set(conversation.speakers))
    return (shifts + speakers) / (len(conversation) + speakers)


def curriculum(conversations: Sequence[Conversation], *, buckets: int, epochs: int) -> list[np.ndarray]:
    """Returns the conversations that each epoch trains on.

    Sorted by difficulty (those alike stay in order) and cut into buckets of equal size, give or take one; the first
    epoch has the easiest bucket, and each one after it a bucket more, until all are there.

    Args:
      conversations: those of the training split.
      buckets: 0 or 1 = all conversations from the start; those beyond the number of conversations are empty.
      epochs: that will be trained.

    Returns:
      For each epoch an array of positions in `conversations`, ascending.
    """
    order = np.argsort([difficulty(c) for c in conversations], kind="stable")
    ends = np.cumsum([len(bucket) for bucket in np.array_split(order, max(buckets, 1))])
    stages = [np.sort(order[:end]) for end in ends]
    return [stages[min(epoch, len(stages) - 1)] for epoch in range(epochs)]
