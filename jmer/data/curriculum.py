"""Curriculum of MultiDAG+CL (Nguyen et al., 2024): conversations whose emotions shift least are trained on first."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation
from jmer.data.packing import steps_per_epoch


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

    They are sorted by difficulty (stably) and cut into buckets whose sizes differ by one at most. The first epoch has
    the easiest bucket; each later one adds a bucket, until all are included.

    Args:
      conversations: those of the training split.
      buckets: number of buckets; 0 or 1 = all conversations from the start. Buckets beyond the number of conversations
        are empty.
      epochs: number of epochs.

    Returns:
      For each epoch an array of positions in `conversations`, ascending.
    """
    order = np.argsort([difficulty(c) for c in conversations], kind="stable")
    ends = np.cumsum([len(bucket) for bucket in np.array_split(order, max(buckets, 1))])
    stages = [np.sort(order[:end]) for end in ends]
    return [stages[min(epoch, len(stages) - 1)] for epoch in range(epochs)]


@dataclasses.dataclass(frozen=True)
class EpochSchedule:
    """What each epoch of a run trains on, one entry per epoch.

    Attributes:
      conversation_ids: int arrays, positions in the training split.
      steps: number of training steps.
      utterances: number of utterances.
    """

    conversation_ids: Sequence[np.ndarray]
    steps: Sequence[int]
    utterances: Sequence[int]

    def seconds_left(self, epoch: int, seconds: float) -> float:
        """Returns the time that the epochs after the first `epoch` ones will take, if those took `seconds`."""
        return seconds * sum(self.steps[epoch:]) / sum(self.steps[:epoch])


def epoch_schedule(
    conversations: Sequence[Conversation], *, buckets: int, epochs: int, batch_size: int
) -> EpochSchedule:
    """Returns the schedule of a run.

    Args:
      conversations: those of the training split.
      buckets, epochs: see `curriculum`.
      batch_size: conversations per step.
    """
    chosen = curriculum(conversations, buckets=buckets, epochs=epochs)
    return EpochSchedule(
        conversation_ids=chosen,
        steps=[steps_per_epoch(len(ids), batch_size) for ids in chosen],
        utterances=[sum(len(conversations[i]) for i in ids) for ids in chosen],
    )
