"""Validation splits for corpora that have none."""

from collections.abc import Mapping, Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation
from jmer.errors import UserError


def hold_out(
    splits: Mapping[str, Sequence[Conversation]], *, fraction: float = 0.1, seed: int = 0
) -> dict[str, list[Conversation]]:
    """Splits whole training conversations off as a validation split, if there is none.

    Conversations are shuffled, and as many are taken as bring the number of their labelled utterances closest to the
    fraction. Utterances are counted, not conversations, because scores average over utterances and lengths differ a
    lot. Conversations without labels stay in training. The choice depends on the seed and the conversations, not on
    their order in the file.

    Args:
      splits: split name -> conversations; returned unchanged if there is a validation split.
      fraction: approximate fraction of the labelled training utterances to hold out, between 0 and 1.
      seed: of the shuffle, not negative.

    Returns:
      The splits; each conversation is in exactly one of them, in the order of the input.

    Raises:
      UserError: if fewer than two training conversations have labels, or `fraction` or `seed` is out of range.
    """
    listed = {split: list(conversations) for split, conversations in splits.items()}
    if "validation" in listed:
        return listed
    if not 0 < fraction < 1:
        raise UserError(f"cannot hold out a fraction of {fraction}: expected a number between 0 and 1, such as 0.1")
    if seed < 0:
        raise UserError(f"cannot shuffle with seed {seed}: expected 0 or more")
    train = listed.get("train", [])
    labelled = {i: np.count_nonzero(c.labels != UNLABELLED) for i, c in enumerate(train)}
    candidates = sorted((i for i, count in labelled.items() if count), key=lambda i: train[i].id)
    if len(candidates) < 2:
        raise UserError(
            f"cannot hold out validation conversations: {len(candidates)} training conversations have labels, at least "
            "2 are needed; add labels, or a validation split"
        )
    shuffled = np.random.default_rng(seed).permutation(candidates).tolist()
    counts = np.cumsum([labelled[i] for i in shuffled])
    taken = 1 + np.argmin(np.abs(counts[:-1] - fraction * counts[-1]))
    chosen = set(shuffled[:taken])
    return listed | {
        "train": [c for i, c in enumerate(train) if i not in chosen],
        "validation": [c for i, c in enumerate(train) if i in chosen],
    }
