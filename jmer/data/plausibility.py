"""Signs that a corpus is not what its files meant, such as merged conversations; no defects, only suspicions."""

from collections.abc import Mapping, Sequence

from jmer.data.corpus import Conversation

# The longest conversations of public corpora have 110 utterances (IEMOCAP), 33 (MELD), 35 (DailyDialog), about 25
# (EmoryNLP) and 63 and 98 (the videos of CMU-MOSI and MOSEI). Merged ones are as much longer as ids restart: hundreds.
LONGEST_PLAUSIBLE = 200
LONGEST_PUBLIC = 110

# Ids of utterances are either numbers within their conversation, most of which occur in many conversations, or names
# that are unique in the corpus.
FEWEST_CONVERSATIONS = 10
UNIQUE_FRACTION = 0.9


def suspicions(splits: Mapping[str, Sequence[Conversation]]) -> list[str]:
    """Returns what is suspicious in conversations, one line each.

    Args:
      splits: split name -> conversations.
    """
    return [*_long_conversations(splits), *_repeated_utterances(splits)]


def _long_conversations(splits: Mapping[str, Sequence[Conversation]]) -> list[str]:
    lengths = {(split, c.id): len(c) for split, conversations in splits.items() for c in conversations}
    long = [key for key, length in lengths.items() if length > LONGEST_PLAUSIBLE]
    if not long:
        return []
    split, name = longest = max(long, key=lengths.__getitem__)
    return [
        f"{len(long)} of {len(lengths)} conversations have more than {LONGEST_PLAUSIBLE} utterances, '{name}' of "
        f"{split} {lengths[longest]}; the longest of the public corpora have {LONGEST_PUBLIC}: if ids of conversations "
        "restart in every episode, session or file, this merged them: name all columns that form the ids "
        "(--conversation A,B,C in a table), or make the keys in the file unique"
    ]


def _repeated_utterances(splits: Mapping[str, Sequence[Conversation]]) -> list[str]:
    listed = [(split, c) for split, conversations in splits.items() for c in conversations]
    places: dict[str, list[tuple[str, str]]] = {}
    for split, conversation in listed:
        for name in conversation.utterances:
            places.setdefault(name, []).append((split, conversation.id))
    repeated = [name for name, found in places.items() if len(found) > 1]
    unique = len(places) - len(repeated)
    if not repeated or len(listed) < FEWEST_CONVERSATIONS or unique < UNIQUE_FRACTION * sum(map(len, places.values())):
        return []
    (first_split, first), (second_split, second), *_ = places[repeated[0]]
    return [
        f"{len(repeated)} ids of utterances occur in several conversations though {unique} are unique, for example "
        f"'{repeated[0]}' in '{first}' of {first_split} and '{second}' of {second_split}: if they are the same "
        "utterances, remove them from one, above all if it is in another split"
    ]
