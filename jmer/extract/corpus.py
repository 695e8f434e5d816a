"""From the rows of a manifest and their features to a corpus whose card names the extractors."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Card, Conversation, Corpus
from jmer.data.corpus import Features as ConversationFeatures
from jmer.data.extractors import GIVEN, Identities
from jmer.data.readers.grouping import grouped
from jmer.data.readers.labels import LabelNames, emotions_found
from jmer.data.validation import checked_corpus
from jmer.errors import UserError
from jmer.extract.manifest import Row
from jmer.extract.protocol import Extractor, Features, Missing
from jmer.extract.registry import named
from jmer.extract.work import Extracted
from jmer.modalities import MODALITIES


def identities(extractors: Mapping[str, Extractor]) -> Identities:
    """Returns what a card says of extractors: modality -> identity, and how a command line names it."""
    return {modality: {**extractor.identity, GIVEN: named(extractor)} for modality, extractor in extractors.items()}


def labels_of_rows(rows: Sequence[Row], options: argparse.Namespace) -> tuple[list[int], tuple[str, ...]]:
    """Returns an index per row, -1 = unlabelled, and the emotions.

    Args:
      rows: of a manifest.
      options: parsed flags of `jmer.data.readers.labels.add_label_arguments`.

    Raises:
      UserError: naming a row whose label is no emotion.
    """
    given = [row.label for row in rows if row.label not in ("", str(UNLABELLED))]
    if not given and not options.emotions:
        return [UNLABELLED] * len(rows), ()
    names = LabelNames.of(options.emotions or emotions_found(given, options), options)
    labels = []
    for row in rows:
        index = names.index(row.label)
        if index is None:
            raise UserError(f"{row.line}: label is '{row.label}': the emotions are {names.described()}: {names.remedy}")
        labels.append(index)
    return labels, names.of_corpus(labels, options.merge)


def make_corpus_of(
    rows: Sequence[Row],
    labels: Sequence[int],
    emotions: Sequence[str],
    extracted: Extracted,
    extractors: Identities,
    *,
    name: str,
) -> Corpus:
    """Makes a corpus of the rows of a manifest.

    Rows without a split are for training if any row has a label, else for testing.

    Args:
      rows: with the utterances of each conversation together and in order.
      labels: an index per row, -1 = unlabelled.
      emotions: names of the labels.
      extracted: the rows' features.
      extractors: modality -> identity.
      name: of the corpus.

    Raises:
      UserError: with a line per defect.
    """
    labelled = any(label != UNLABELLED for label in labels)
    unsplit = "train" if labelled else "test"
    splits: dict[str, list[Conversation]] = {}
    for positions in grouped(row.conversation for row in rows).values():
        chosen = [rows[position] for position in positions]
        features = {
            modality: [found[position] for position in positions] for modality, found in extracted.features.items()
        }
        conversation = _conversation(chosen, [labels[position] for position in positions], features, extractors)
        splits.setdefault(chosen[0].split or unsplit, []).append(conversation)
    listed = ", ".join(f"{modality} by {identity['extractor']}" for modality, identity in extractors.items())
    card = Card(
        name=name,
        widths={m: extractors[m]["width"] for m in MODALITIES if m in extractors},
        emotions=tuple(emotions),
        provenance=f"Extracted by jmer: {listed}.",
        synthetic=False,
        frames=next(iter(extractors.values()))["frames"],
        extractors=extractors,
    )
    return checked_corpus(splits, card, for_training=labelled and "train" in splits)


def missing_lines(extracted: Extracted) -> list[str]:
    """Returns, for each modality, how many utterances lack its features, and why."""
    lines = []
    for modality, found in extracted.features.items():
        # What differs from utterance to utterance, such as a length, stands after a colon.
        reasons = Counter(one.reason.partition(":")[0] for one in found if isinstance(one, Missing))
        if reasons:
            listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            lines.append(f"{modality} is missing in {sum(reasons.values())} of {len(found)} utterances: {listed}")
    return lines


def _conversation(
    rows: Sequence[Row], labels: Sequence[int], features: Mapping[str, Sequence[Features]], extractors: Identities
) -> Conversation:
    return Conversation(
        id=rows[0].conversation,
        utterances=_utterance_names(rows),
        speakers=[row.speaker for row in rows],
        labels=np.array(labels, np.int32),
        features={m: _values(found, extractors[m]) for m, found in features.items()},
        available={m: np.array([not isinstance(f, Missing) for f in found]) for m, found in features.items()},
        sentences=[row.transcript for row in rows],
    )


def _values(features: Sequence[Features], identity: Mapping) -> ConversationFeatures:
    width = identity["width"]
    if identity["frames"]:
        return [np.zeros((0, width), np.float32) if isinstance(one, Missing) else one for one in features]
    return np.stack([np.zeros(width, np.float32) if isinstance(one, Missing) else one for one in features])


def _utterance_names(rows: Sequence[Row]) -> list[str]:
    """Returns the names that rows have; the others are numbered, without taking a name that another has."""
    taken = {row.utterance for row in rows}
    numbered = (str(number) for number in range(2 * len(rows)))
    free = (name for name in numbered if name not in taken)
    return [row.utterance or next(free) for row in rows]


def check_same_kind(extractors: Mapping[str, Extractor]) -> None:
    """Raises UserError if some extractors make frames and others a vector per utterance."""
    kinds = {modality: extractor.frames for modality, extractor in extractors.items()}
    if len(set(kinds.values())) > 1:
        frames = next(modality for modality, has in kinds.items() if has)
        vectors = next(modality for modality, has in kinds.items() if not has)
        raise UserError(
            f"extractor '{extractors[frames].name}' of {frames} makes frames, '{extractors[vectors].name}' of "
            f"{vectors} a vector per utterance: choose one kind for all"
        )
