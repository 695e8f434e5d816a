"""The examples that a model reads: conversations, or single utterances where these are sequences of frames."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation, any_labelled
from jmer.data.frames import single_utterances
from jmer.errors import UserError

CONTEXTS = ("mask_unlabelled", "drop_unlabelled")


def make_examples(
    conversations: Sequence[Conversation], *, frames: bool, context: str = "mask_unlabelled"
) -> list[Conversation]:
    """Returns what a model reads as a whole: conversations, or the single utterances of a corpus with frames.

    Args:
      conversations: those of one split.
      frames: whether their utterances are sequences of frames.
      context: what utterances without a label are: `mask_unlabelled` (context for the others, in no loss or score) or
        `drop_unlabelled` (left out, unless no conversation has a label).

    Raises:
      UserError: for another `context`.
    """
    if context not in CONTEXTS:
        raise UserError(f"data.context is '{context}': choose one of {', '.join(CONTEXTS)}")
    if context == "drop_unlabelled" and any_labelled(conversations):
        conversations = labelled_only(conversations)
    return single_utterances(conversations) if frames else list(conversations)


def labelled_only(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Returns the conversations without their unlabelled utterances; those with no labelled one are left out."""
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
        attributes={name: pick(values) for name, values in conversation.attributes.items()},
    )
