"""Curriculum learning: conversations whose emotions shift least are trained on first.

Two measures of difficulty: that of MultiDAG+CL (Nguyen et al., 2024), which counts shifts, and the improved one of
LSDGNN (2025), in which a shift counts more between emotions that are alike.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation
from jmer.data.emotion_wheel import similarities, without_angle
from jmer.data.packing import steps_per_epoch
from jmer.errors import UserError

MEASURES = ("none", "shift", "weighted_shift")
"""Values of `curriculum.measure`."""


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Which conversations are easy, and how many epochs have how many of them.

    Attributes:
      shift_weights: float `[C, C]`, what a shift from one emotion to another counts.
      across_gaps: whether an utterance without a label is skipped, so that those around it are compared; if not, there
        is no shift from it and to it.
      even: whether buckets differ by one conversation at most. If not, all have ⌈n/K⌉ but the last, and they may come
        out fewer than `buckets`.
      buckets: K.
      epochs_per_bucket: epochs after which another bucket is added.
    """

    shift_weights: np.ndarray
    across_gaps: bool
    even: bool
    buckets: int
    epochs_per_bucket: int = 1

    def difficulty(self, conversation: Conversation) -> float:
        """Returns (weights of emotion shifts + speakers) / (utterances + speakers).

        An emotion shift is a change between two consecutive utterances of the same speaker.
        """
        last: dict[str, int] = {}
        weights = []
        for speaker, label in zip(conversation.speakers, conversation.labels.tolist(), strict=True):
            before = last.get(speaker, UNLABELLED)
            if before != label and UNLABELLED not in (before, label):
                weights.append(float(self.shift_weights[before, label]))
            if label != UNLABELLED or not self.across_gaps:
                last[speaker] = label
        speakers = len(set(conversation.speakers))
        # Equal shifts are equally difficult in whatever order they come.
        return (math.fsum(weights) + speakers) / (len(conversation) + speakers)

    def epochs(self, conversations: Sequence[Conversation], count: int) -> list[np.ndarray]:
        """Returns the conversations that each of `count` epochs trains on.

        They are sorted by difficulty (stably) and cut into buckets. The first epoch has the easiest bucket; later ones
        add a bucket at a time, until all are included.

        Args:
          conversations: those of the training split, at least one.
          count: number of epochs.

        Returns:
          For each epoch an array of positions in `conversations`, ascending.
        """
        order = np.argsort([self.difficulty(c) for c in conversations], kind="stable")
        if self.even:
            ends = np.cumsum([len(bucket) for bucket in np.array_split(order, self.buckets)])
        else:
            size = -(-len(order) // self.buckets)
            ends = np.arange(size, len(order) + size, size)
        stages = [np.sort(order[:end]) for end in ends]
        return [stages[min(epoch // self.epochs_per_bucket, len(stages) - 1)] for epoch in range(count)]


def make_curriculum(config: Mapping[str, Any], emotions: Sequence[str]) -> Curriculum | None:
    """Returns the curriculum that a configuration describes, None without any.

    Args:
      config: the section `curriculum`.
      emotions: names in the order of their labels.

    Raises:
      UserError: naming the field, for a value that does not exist or fit.
    """
    measure, buckets, epochs = config["measure"], config["buckets"], config["epochs_per_bucket"]
    if measure not in MEASURES:
        raise UserError(f"curriculum.measure is '{measure}': choose one of {', '.join(MEASURES)}")
    for field in ("scale", "offset"):
        if not 0 <= config[field] < math.inf:
            raise UserError(f"curriculum.{field} is {config[field]}: give a number that is not negative")
    weights = config["scale"] * similarities(emotions, config["angles"]) + config["offset"]
    if measure == "none":
        return None
    if measure == "shift":
        return Curriculum(np.ones_like(weights), True, True, buckets, epochs)
    return Curriculum(weights, False, False, buckets, epochs)


def first_complete_epoch(config: Mapping[str, Any]) -> int:
    """Returns the first epoch, counted from 1, that has all conversations; 0 without a curriculum."""
    if config["measure"] == "none":
        return 0
    return (config["buckets"] - 1) * config["epochs_per_bucket"] + 1


def curriculum_lines(config: Mapping[str, Any], emotions: Sequence[str]) -> list[str]:
    """Returns the notes on a curriculum that are printed before training, a line or none."""
    lacking = without_angle(emotions, config["angles"]) if config["measure"] == "weighted_shift" else []
    if not lacking:
        return []
    return [
        f"curriculum: no angle is known of {', '.join(lacking)}, which count as neutral; curriculum.angles gives one"
    ]


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
    conversations: Sequence[Conversation], curriculum: Curriculum | None, *, epochs: int, batch_size: int
) -> EpochSchedule:
    """Returns the schedule of a run.

    Args:
      conversations: those of the training split.
      curriculum: which of them an epoch has; None = all.
      epochs: number of epochs.
      batch_size: conversations per step.
    """
    everything = np.arange(len(conversations))
    chosen = [everything] * epochs if curriculum is None else curriculum.epochs(conversations, epochs)
    return EpochSchedule(
        conversation_ids=chosen,
        steps=[steps_per_epoch(len(ids), batch_size) for ids in chosen],
        utterances=[sum(len(conversations[i]) for i in ids.tolist()) for ids in chosen],
    )
