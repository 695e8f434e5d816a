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
    differ a lot. Conversations without labels stay in training. The choice depends on the seed and the conversations,
    not on their order in the file.

    Args:
      splits: split name -> conversations; returned as it is if it has a validation split.
      share: about this share of the labelled training utterances is held out, between 0 and 1.
      seed: of the shuffle, not negative.

    Returns:
      The splits, each conversation in exactly one of them and in the order of the input.

    Raises:
      UserError: if there is no conversation to spare, or the share or the seed is out of range.
    """
    splits = {split: list(conversations) for split, conversations in splits.items()}
    if "validation" in splits:
        return splits
    if not 0 < share < 1:
        raise UserError(f"cannot hold out a share of {share}: give one between 0 and 1, such as 0.1")
    if seed < 0:
        raise UserError(f"cannot shuffle with seed {seed}: give one that is not negative")
    train = splits.get("train", [])
    labelled = {i: np.count_nonzero(c.labels != UNLABELLED) for i, c in enumerate(train)}
    candidates = sorted((i for i, count in labelled.items() if count), key=lambda i: train[i].id)
    if len(candidates) < 2:
        raise UserError(
            f"cannot hold out validation conversations: {len(candidates)} training conversations have labels, at least "
            "2 are needed, or rows whose split is validation"
        )
    shuffled = np.random.default_rng(seed).permutation(candidates).tolist()
    counts = np.cumsum([labelled[i] for i in shuffled])
    taken = 1 + np.argmin(np.abs(counts[:-1] - share * counts[-1]))
    chosen = set(shuffled[:taken])
    return splits | {
        "train": [c for i, c in enumerate(train) if i not in chosen],
        "validation": [c for i, c in enumerate(train) if i in chosen],
    }
