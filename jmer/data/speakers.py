"""Numbers of speakers: within a conversation, or of names that all conversations of a corpus share."""

from collections.abc import Iterable, Sequence

from jmer.data.corpus import Conversation
from jmer.errors import UserError

APPEARANCE, CORPUS = INDICES = ("appearance", "corpus")
"""Values of `data.speaker_index`, the default first."""


def speaker_names(conversations: Iterable[Conversation]) -> tuple[str, ...]:
    """Returns the names of all speakers, sorted."""
    return tuple(sorted({name for conversation in conversations for name in conversation.speakers}))


def number_speakers(conversation: Conversation, names: Sequence[str] = ()) -> list[int]:
    """Returns the speaker of each utterance as a number.

    Args:
      conversation: of which.
      names: of the corpus' speakers in the order of their numbers; empty = the speakers are numbered in the order of
        their first utterances.

    Raises:
      UserError: for a speaker who is not among the names.
    """
    numbers = {name: i for i, name in enumerate(names)}
    if not names:
        return [numbers.setdefault(name, len(numbers)) for name in conversation.speakers]
    for name in conversation.speakers:
        if name not in numbers:
            raise UserError(
                f"conversation '{conversation.id}' has the speaker '{name}', but training had only {', '.join(names)}: "
                "name the speakers alike, or train with data.speaker_index=appearance"
            )
    return [numbers[name] for name in conversation.speakers]
