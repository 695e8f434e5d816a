"""Validation splits for corpora that have none."""

from collections.abc import Mapping, Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation
from jmer.data.groups import group_conversations
from jmer.errors import UserError


def hold_out(
    splits: Mapping[str, Sequence[Conversation]], *, fraction: float = 0.1, seed: int = 0, by: str = "conversation"
) -> dict[str, list[Conversation]]:
    """Splits whole training conversations off as a validation split, if there is none.

    Groups of conversations are shuffled, and as many are taken as bring the number of their labelled utterances closest
    to the fraction. Utterances are counted, not conversations, because scores average over utterances and lengths
    differ a lot. Groups without labels stay in training. The choice depends on the seed and the conversations, not on
    their order in the file.

    Args:
      splits: split name -> conversations; returned unchanged if there is a validation split.
      fraction: approximate fraction of the labelled training utterances to hold out, between 0 and 1.
      seed: of the shuffle, not negative.
      by: what stays together: `conversation`, `speaker` (training and validation then have no speaker in common) or
        `session`, see `jmer.data.groups.group_conversations`.

    Returns:
      The splits; each conversation is in exactly one of them, in the order of the input.

    Raises:
      UserError: if fewer than two groups of training conversations have labels, or an argument is out of range.
    """
    listed = {split: list(conversations) for split, conversations in splits.items()}
    if "validation" in listed:
        return listed
    if not 0 < fraction < 1:
        raise UserError(f"cannot hold out a fraction of {fraction}: expected a number between 0 and 1, such as 0.1")
    if seed < 0:
        raise UserError(f"cannot shuffle with seed {seed}: expected 0 or more")
    train = listed.get("train", [])
    groups = group_conversations(train, by)
    labelled = {i: count for i, group in enumerate(groups) if (count := labelled_utterances(train, group))}
    if len(labelled) < 2:
        raise UserError(_too_few(train, by))
    shuffled = np.random.default_rng(seed).permutation(list(labelled)).tolist()
    counts = np.cumsum([labelled[i] for i in shuffled])
    taken = 1 + np.argmin(np.abs(counts[:-1] - fraction * counts[-1]))
    chosen = {position for i in shuffled[:taken] for position in groups[i]}
    return listed | {
        "train": [c for i, c in enumerate(train) if i not in chosen],
        "validation": [c for i, c in enumerate(train) if i in chosen],
    }


def labelled_utterances(conversations: Sequence[Conversation], chosen: Sequence[int]) -> int:
    """Returns the number of labelled utterances of the conversations at some positions."""
    return sum(int(np.count_nonzero(conversations[i].labels != UNLABELLED)) for i in chosen)


def _too_few(train: Sequence[Conversation], by: str) -> str:
    labelled = sum(labelled_utterances(train, [i]) > 0 for i in range(len(train)))
    if by == "conversation" or labelled < 2:
        return (
            f"cannot hold out validation conversations: {labelled} training conversations have labels, at least 2 are "
            "needed; add labels, or a validation split"
        )
    shared = {"speaker": "are connected by speakers they share", "session": "are of one session"}[by]
    return (
        f"cannot hold out by {by}: all {labelled} labelled training conversations {shared}; hold out by conversation, "
        "or add a validation split"
    )
