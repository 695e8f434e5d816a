"""What makes two corpora the same: digests of what they contain, wherever they lie and whatever they are called."""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jmer.digests import array_bytes, digest, digest_json

if TYPE_CHECKING:
    from jmer.data.corpus import Card, Conversation

# Transcripts are shown, and no model reads them: a corpus whose typing errors were corrected is the same one.
NOT_COMPARED = "sentences"


@dataclasses.dataclass(frozen=True)
class SplitIdentity:
    """What a split contains.

    Attributes:
      conversations: their number.
      utterances: their number.
      digests: of its parts: `utterances` (the conversations' ids, the utterances' names and their order), `speakers`,
        `labels`, `sentences`, each modality (features, widths, frames and availability), and each attribute as
        `attribute_<name>` (values and scale).
    """

    conversations: int
    utterances: int
    digests: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits, the same for the same contents, transcripts included."""
        return digest_json(self.digests)


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a corpus contains; its name, its provenance and where it lies do not count.

    Attributes:
      emotions: their names, in the order of the labels.
      splits: split -> its identity.
    """

    emotions: tuple[str, ...]
    splits: Mapping[str, SplitIdentity]

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits, the same for the same contents but for the transcripts."""
        compared = {
            split: {part: digest for part, digest in found.digests.items() if part != NOT_COMPARED}
            for split, found in self.splits.items()
        }
        return digest_json([self.emotions, compared])


def identify(splits: Mapping[str, Sequence["Conversation"]], card: "Card") -> Identity:
    """Computes the identity of conversations that fit a card."""
    return Identity(card.emotions, {split: _identify(found, card) for split, found in splits.items()})


def difference(there: Identity, here: Identity, modalities: Collection[str], attributes: Collection[str] = ()) -> str:
    """Says what a model that reads some modalities would find different in two corpora.

    Args:
      there: of the one corpus.
      here: of the other one.
      modalities: those that the model reads; transcripts and other modalities may differ.
      attributes: those that the model learns; others may differ.

    Returns:
      E.g. "the labels and text features of train differ"; empty if nothing differs.
    """
    parts = {"speakers": "speakers", "labels": "labels"} | {m: f"{m} features" for m in modalities}
    parts |= {f"attribute_{name}": f"{name} values" for name in attributes}
    return ", ".join(_differences(there, here, parts))


def _differences(there: Identity, here: Identity, parts: Mapping[str, str]) -> Iterator[str]:
    """Yields the differences of two corpora; `parts` names what is compared of utterances that are the same."""
    if there.emotions != here.emotions:
        yield f"the emotions differ ({', '.join(there.emotions)} there and {', '.join(here.emotions)} here)"
    for split in dict.fromkeys((*there.splits, *here.splits)):
        if split not in there.splits or split not in here.splits:
            yield f"there is no {split} split {'here' if split in there.splits else 'there'}"
            continue
        one, other = there.splits[split], here.splits[split]
        # Of other utterances all the rest differs too.
        if one.digests.get("utterances") != other.digests.get("utterances"):
            yield f"the utterances of {split} differ ({_size(one)} there and {_size(other)} here)"
            continue
        found = [name for part, name in parts.items() if one.digests.get(part) != other.digests.get(part)]
        if found:
            *others, last = found
            yield f"the {', '.join(others)}{' and ' if others else ''}{last} of {split} differ"


def _size(split: SplitIdentity) -> str:
    return f"{split.utterances} in {split.conversations} conversations"


def _identify(conversations: Sequence["Conversation"], card: "Card") -> SplitIdentity:
    def texts(field: str) -> str:
        return digest_json([list(getattr(c, field)) for c in conversations])

    digests = {
        "utterances": digest_json([[c.id, list(c.utterances)] for c in conversations]),
        "speakers": texts("speakers"),
        "labels": digest(*(_bytes(c.labels, np.int32) for c in conversations)),
        "sentences": texts("sentences"),
    }
    for modality, width in card.widths.items():
        kind = json.dumps([width, card.frames]).encode()
        digests[modality] = digest(kind, *(piece for c in conversations for piece in _features(c, modality)))
    for name, scale in card.attributes.items():
        values = (_bytes(c.attributes[name], np.float32) for c in conversations)
        digests[f"attribute_{name}"] = digest(json.dumps(scale).encode(), *values)
    return SplitIdentity(len(conversations), sum(map(len, conversations)), digests)


def _features(conversation: "Conversation", modality: str) -> Iterator[bytes | memoryview]:
    values = conversation.features[modality]
    yield _bytes(conversation.available[modality], np.bool_)
    if isinstance(values, np.ndarray):
        yield _bytes(values, np.float32)
    else:
        yield _bytes(np.array([len(frames) for frames in values]), np.int64)
        yield from (_bytes(frames, np.float32) for frames in values)


def _bytes(values: np.ndarray, dtype: type) -> memoryview:
    """Returns the bytes of an array in C order, little-endian; they are not copied if they lie so."""
    return array_bytes(np.asarray(values, np.dtype(dtype).newbyteorder("<")))
