"""From a corpus to what batches are made of."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation, Corpus, any_labelled
from jmer.data.frames import single_utterances
from jmer.errors import UserError

CONTEXTS = ("mask_unlabelled", "drop_unlabelled")


def batch_rows(corpus: Corpus, split: str, *, context: str = "mask_unlabelled") -> list[Conversation]:
    """Returns what a batch has one row for: a split's conversations, or the single utterances of a corpus with frames.

    Args:
      corpus: any.
      split: one of its splits.
      context: what utterances without a label are: `mask_unlabelled` (context for the others, in no loss or score) or
        `drop_unlabelled` (not there at all, unless the whole split has no label).

    Raises:
      UserError: for another `context`, or if the corpus has no such split or its Arrow file is damaged.
    """
    if context not in CONTEXTS:
        raise UserError(f"data.context is '{context}': choose one of {', '.join(CONTEXTS)}")
    conversations = corpus.conversations(split)
    if context == "drop_unlabelled" and any_labelled(conversations):
        conversations = labelled_only(conversations)
    return single_utterances(conversations) if corpus.card.frames else conversations


def labelled_only(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Leaves utterances without a label out, and conversations that have no other."""
    shortened = (_keep(c, np.flatnonzero(c.labels != UNLABELLED)) for c in conversations)
    return [conversation for conversation in shortened if len(conversation)]


def _keep(conversation: Conversation, chosen: np.ndarray) -> Conversation:
    if len(chosen) == len(conversation):
        return conversation

    def pick(values):
        return values[chosen] if isinstance(values, np.ndarray) else [values[i] for i in chosen]

    return dataclasses.replace(
        conversation,
        utterances=pick(conversation.utterances),
        speakers=pick(conversation.speakers),
        labels=pick(conversation.labels),
        features={m: pick(values) for m, values in conversation.features.items()},
        available={m: pick(values) for m, values in conversation.available.items()},
        sentences=pick(conversation.sentences),
    )
