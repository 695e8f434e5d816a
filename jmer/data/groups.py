"""Which conversations belong together: by session, or because speakers take part in several of them."""

import re
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jmer.data.corpus import Conversation
from jmer.errors import UserError

GROUPINGS = ("conversation", "speaker", "session")

# IEMOCAP's conversations: session, actor who wears the markers, scene. Splits may have been put before them.
_IEMOCAP = re.compile(r"(?:^|_)(Ses\d\d)[FM]_")


def session(conversation: Conversation) -> str:
    """Returns the session of a conversation, which IEMOCAP's ids name (`Ses01` of `Ses01F_impro01`).

    Raises:
      UserError: if the id names no session.
    """
    found = _IEMOCAP.search(conversation.id)
    if found is None:
        raise UserError(
            f"conversation '{conversation.id}' names no session: sessions are known by IEMOCAP's ids (Ses01F_impro01); "
            "for other corpora, convert a table with --fold COLUMN"
        )
    return found[1]


def speaker_identities(conversation: Conversation) -> list[str]:
    """Returns the speaker of each utterance by a name that means the same person in every conversation.

    A name is an identity as it stands. IEMOCAP names speakers by gender alone, and has another pair in each session:
    there the session goes before the name.
    """
    found = _IEMOCAP.search(conversation.id)
    if found is None:
        return list(conversation.speakers)
    return [name if name.startswith(found[1]) else f"{found[1]}_{name}" for name in conversation.speakers]


def group_conversations(conversations: Sequence[Conversation], by: str) -> list[list[int]]:
    """Partitions conversations, so that one part can be held out without the rest knowing anything of it.

    Args:
      conversations: of any splits, with ids that differ.
      by: `conversation`, each by itself; `speaker`, conversations that share a speaker, be it through others, together;
        `session`, as `session` says.

    Returns:
      Positions in `conversations`, ascending in a group; the groups are sorted by the first of their ids.

    Raises:
      UserError: for another `by`, or if ids name no session.
    """
    if by not in GROUPINGS:
        raise UserError(f"conversations cannot be grouped by '{by}': choose one of {', '.join(GROUPINGS)}")
    if by == "conversation":
        keys = list(range(len(conversations)))
    elif by == "session":
        keys = np.unique([session(c) for c in conversations], return_inverse=True)[1].tolist()
    else:
        keys = _components([set(speaker_identities(c)) for c in conversations])
    groups: dict[int, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return sorted(groups.values(), key=lambda group: min(conversations[i].id for i in group))


def _components(speakers: Sequence[set[str]]) -> list[int]:
    """Returns for each conversation the number of the connected component that its speakers put it in."""
    known = {name: i for i, name in enumerate(dict.fromkeys(name for names in speakers for name in sorted(names)))}
    edges = [(row, len(speakers) + known[name]) for row, names in enumerate(speakers) for name in names]
    size = len(speakers) + len(known)
    rows, columns = np.array(edges).reshape(-1, 2).T
    _, labels = connected_components(coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size)))
    return labels[: len(speakers)].tolist()
