"""Conversation, position and speaker of an utterance, by its name in files that have nothing else."""

import argparse
import re
from collections.abc import Sequence
from typing import NamedTuple

from jmer.errors import UserError


class Place(NamedTuple):
    """Where an utterance belongs.

    Attributes:
      conversation: name of the conversation.
      position: sort key in the conversation; None = in the order of the file.
      speaker: name of the speaker; None = unknown.
    """

    conversation: str
    position: float | None
    speaker: str | None


# The names that the public corpora use.
_PATTERNS = (
    r"(?P<session>Ses\d\d)(?P<rest>[MF]_\w+)_(?P<gender>[MF])[A-Z]*\d+",  # IEMOCAP: Ses01F_impro01_F000
    r"(?P<conversation>dia\d+)_utt(?P<position>\d+)",  # MELD
    r"(?P<conversation>.+)\$_\$(?P<position>\d+)",  # MMSA
    r"(?P<conversation>.+)\[(?P<position>\d+)\]",  # CMU-MultimodalSDK
    r"(?P<conversation>.+)_(?P<position>\d+)",
)


def add_alone_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--alone`."""
    parser.add_argument(
        "--alone",
        action="store_true",
        help="in a file that has utterances, not conversations: take each as a conversation of its own. Without this, "
        "their names tell: VIDEO$_$SEGMENT, VIDEO[SEGMENT], VIDEO_SEGMENT, diaN_uttM, and IEMOCAP's",
    )


def place_of(name: str) -> Place | None:
    """Returns the place of an utterance, None if its name does not tell its conversation."""
    match = next(filter(None, (re.fullmatch(pattern, name) for pattern in _PATTERNS)), None)
    if match is None:
        return None
    parts = match.groupdict()
    if "session" in parts:
        # In each session a woman and a man speak; their names are those of the session and F or M.
        return Place(parts["session"] + parts["rest"], None, f"{parts['session']}_{parts['gender']}")
    return Place(parts["conversation"], int(parts["position"]), None)


def places(where: str, names: Sequence[str], *, alone: bool) -> list[Place]:
    """Returns the places of the utterances of a file.

    Args:
      where: the file, for errors.
      names: of the utterances, in the order of the file.
      alone: whether each is a conversation of its own.

    Raises:
      UserError: if a name does not tell its conversation.
    """
    if alone:
        return [Place(name, None, None) for name in names]
    found = []
    for name in names:
        place = place_of(name)
        if place is None:
            raise UserError(
                f"{where}: utterance '{name}' does not tell its conversation, as VIDEO$_$SEGMENT or VIDEO[SEGMENT] do: "
                "rename the utterances, or give --alone to take each as a conversation of its own"
            )
        found.append(place)
    return found


def grouped(places: Sequence[Place]) -> dict[str, list[int]]:
    """Returns the rows of each conversation, in the order of their positions where these are known."""
    rows: dict[str, list[int]] = {}
    for row, place in enumerate(places):
        rows.setdefault(place.conversation, []).append(row)
    return {name: sorted(own, key=lambda row: places[row].position or 0) for name, own in rows.items()}
