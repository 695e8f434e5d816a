"""Splits that a corpus comes without."""

from collections.abc import Mapping, Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation
from jmer.errors import UserError

Splits = Mapping[str, Sequence[Conversation]]


def hold_out(splits: Splits, *, share: float = 0.1, seed: int = 0) -> dict[str, list[Conversation]]:
    """Gives a corpus without a validation split one, out of whole training conversations.

    Shuffled conversations are taken one after the other, as many as bring their labelled utterances nearest to the
    share: utterances and not conversations are counted because utterances are what a score averages over, and lengths
    differ a lot. The choice depends on the seed and the conversations, not on their order in the file.

    Args:
      splits: split name -> conversations; returned as it is if it has a validation split.
      share: about this share of the labelled training utterances is held out, between 0 and 1.
      seed: of the shuffle.

    Returns:
      The splits, each conversation in exactly one of them and in the order of the input.

    Raises:
      UserError: if there is no conversation to spare, or the share is not between 0 and 1.
    """
    splits = {split: list(conversations) for split, conversations in splits.items()}
    if "validation" in splits:
        return splits
    if not 0 < share < 1:
        raise UserError(f"cannot hold out a share of {share}: give one between 0 and 1, such as 0.1")
    train = splits.get("train", [])
    if len(train) < 2:
        raise UserError(
            f"cannot hold out validation conversations from {len(train)} training conversations: "
            "at least 2 are needed, or rows whose split is validation"
        )
    by_name = sorted(range(len(train)), key=lambda i: train[i].id)
    shuffled = np.random.default_rng(seed).permutation(by_name)
    labelled = np.cumsum([np.count_nonzero(train[i].labels != UNLABELLED) for i in shuffled])
    taken = 1 + np.argmin(np.abs(labelled[:-1] - share * labelled[-1]))
    chosen = set(shuffled[:taken].tolist())
    return splits | {
        "train": [c for i, c in enumerate(train) if i not in chosen],
        "validation": [c for i, c in enumerate(train) if i in chosen],
    }
