"""Checks of a corpus; each defect is described in one line."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.attributes import attribute_defects
from jmer.data.corpus import SPLITS, Card, Conversation, Corpus, Folds, build_corpus
from jmer.errors import UserError
from jmer.modalities import MODALITIES
from jmer.text import LONGEST_TRANSCRIPT, name_fault, printable, storable
from jmer.warning import warn

SHOWN_DEFECTS = 10
LONGEST_EXCERPT = 60


def defects(
    splits: Mapping[str, Sequence[Conversation]], card: Card, *, for_training: bool = True, folds: Folds | None = None
) -> list[str]:
    """Returns the defects of conversations that are to become a corpus, one line each.

    Names that could not be written and read back (see `jmer.text`) hide all other defects.

    Args:
      splits: split name -> conversations.
      card: the card that they must match.
      for_training: whether a training split with labels is required; False for a corpus that is only predicted.
      folds: those that the corpus declares; None = none.
    """
    found = list(_name_defects(splits, card, folds or {})) or [
        *_card_defects(card),
        *_split_defects(splits),
        *(_training_defects(splits) if for_training else ()),
        *_repeated_conversations(splits),
        *_fold_defects(folds or {}, {c.id for conversations in splits.values() for c in conversations}),
        *(
            f"{split}, conversation '{conversation.id}': {defect}"
            for split, conversations in splits.items()
            for conversation in conversations
            for defect in _conversation_defects(conversation, card)
        ),
    ]
    return list(map(printable, found))


def check_card(card: Card) -> None:
    """Checks the card of a corpus by itself.

    Raises:
      UserError: if it has defects; names the first.
    """
    for found in (*_name_defects({}, card, {}), *_card_defects(card)):
        raise UserError(found)


def checked_corpus(
    splits: Mapping[str, Sequence[Conversation]],
    card: Card,
    *,
    for_training: bool = True,
    folder: Path | None = None,
    folds: Folds | None = None,
) -> Corpus:
    """Builds a corpus from conversations after checking them.

    What cannot be stored of sentences and of the provenance is replaced, see `jmer.text.storable`; a warning counts the
    conversations.

    Args:
      splits: split name -> conversations.
      card: the corpus' card.
      for_training: as for `defects`.
      folder, folds: as for `jmer.data.corpus.build_corpus`.

    Raises:
      UserError: if there are defects; one line each, the first ten of them.
    """
    found = defects(splits, card, for_training=for_training, folds=folds)
    if found:
        raise UserError(*shortened(found))
    splits, card = _storable_texts(splits, card)
    return build_corpus(splits, card, folder=folder, folds=folds)


def validate_corpus(corpus: Corpus, *, for_training: bool = True) -> None:
    """Checks a corpus.

    Args:
      corpus: a saved one, or one in memory.
      for_training: as for `defects`.

    Raises:
      UserError: if there are defects; names the first and counts the others.
    """
    splits = {split: corpus.conversations(split) for split in corpus.splits}
    found = defects(splits, corpus.card, for_training=for_training, folds=corpus.folds)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(
            f"invalid corpus '{corpus.card.name}': {found[0]}{more}; correct the source and build the corpus again "
            "(`python -m jmer.data.inspect` lists all defects)"
        )


def shortened(lines: Sequence[str], limit: int = SHOWN_DEFECTS) -> list[str]:
    """Returns the first `limit` lines, followed by the number of others if there are any."""
    hidden = len(lines) - limit
    return [*lines[:limit], f"and {hidden} more"] if hidden > 0 else list(lines)


def mark_missing(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replaces NaN by zeros and a mask; one NaN makes the modality unavailable for the whole utterance.

    Args:
      values: `[n, D]`, any floating or integer type; not changed.

    Returns:
      features: float32 `[n, D]`, zero where unavailable. Infinity is kept; `defects` reports it.
      available: bool `[n]`, False where any feature of the utterance is NaN.
    """
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is reported
        values = np.array(values, np.float32)
    available = ~np.isnan(values).any(axis=1)
    values[~available] = 0
    return values, available


def _storable_texts(
    splits: Mapping[str, Sequence[Conversation]], card: Card
) -> tuple[dict[str, list[Conversation]], Card]:
    """Returns the splits and the card with texts that can be stored, and warns if these are others."""
    stored = {split: list(map(_storable_sentences, conversations)) for split, conversations in splits.items()}
    changed = [
        f"{split}, conversation '{old.id}'"
        for split, conversations in splits.items()
        for old, new in zip(conversations, stored[split], strict=True)
        if new is not old
    ]
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        warn(f"{changed[0]}{more}: control characters and halves of characters in sentences became U+FFFD")
    return stored, dataclasses.replace(card, provenance=storable(card.provenance))


def _storable_sentences(conversation: Conversation) -> Conversation:
    sentences = list(map(storable, conversation.sentences))
    same = sentences == list(conversation.sentences)
    return conversation if same else dataclasses.replace(conversation, sentences=sentences)


def _name_defects(splits: Mapping[str, Sequence[Conversation]], card: Card, folds: Folds) -> Iterator[str]:
    yield from _faults("corpus name", [card.name])
    yield from _faults("emotion", card.emotions)
    if "" in card.emotions:
        yield f"emotion {card.emotions.index('')} has no name, like utterances without a label: name it"
    yield from _faults("split", splits)
    yield from _faults("fold", folds)
    for split, conversations in splits.items():
        for position, conversation in enumerate(conversations):
            where = f"{split}, conversation {position + 1}: "
            yield from _faults(f"{where}id", [conversation.id])
            if not name_fault(conversation.id):
                where = f"{split}, conversation '{conversation.id}': "
            yield from _faults(f"{where}utterance", conversation.utterances)
            yield from _faults(f"{where}speaker", conversation.speakers)
            for sentence in conversation.sentences:
                if not isinstance(sentence, str):
                    yield f"{where}a sentence is of type {type(sentence).__name__}: expected a string"
                elif len(sentence) > LONGEST_TRANSCRIPT:
                    yield f"{where}a sentence has {len(sentence)} characters: expected at most {LONGEST_TRANSCRIPT}"


def _faults(what: str, names: Iterable[Any]) -> Iterator[str]:
    for name in names:
        fault = name_fault(name)
        if fault:
            yield f"{what} {_excerpt(name)}{fault}"


def _excerpt(name: Any) -> str:
    """Returns the beginning of a name, before a fault; nothing of other values, whose text may have no end."""
    if not isinstance(name, str):
        return ""
    return f"'{name if len(name) <= LONGEST_EXCERPT else name[:LONGEST_EXCERPT] + '…'}' "


def _card_defects(card: Card) -> Iterator[str]:
    if not card.widths:
        yield f"the corpus has no modality: expected features of {', '.join(MODALITIES)}"
    for modality, width in card.widths.items():
        if modality not in MODALITIES:
            yield f"unknown modality '{modality}': the modalities are {', '.join(MODALITIES)}"
        if width < 1:
            yield f"{modality} has width {width}: expected at least 1"
    for name in _repeated(card.emotions):
        yield f"emotion '{name}' occurs more than once in {', '.join(card.emotions)}"


def _split_defects(splits: Mapping[str, Sequence[Conversation]]) -> Iterator[str]:
    for split, conversations in splits.items():
        if split not in SPLITS:
            yield f"unknown split '{split}': the splits are {', '.join(SPLITS)}"
        if not conversations:
            yield f"{split}: no conversations; leave the split out"


def _fold_defects(folds: Folds, known: set[str]) -> Iterator[str]:
    for name, fold in folds.items():
        for split in ("train", "test"):
            if not fold.get(split):
                yield f"fold {name} has no conversations to {split}: give it some, or leave it out"
        for split in fold:
            if split not in SPLITS:
                yield f"fold {name} has the unknown split '{split}': the splits are {', '.join(SPLITS)}"
        ids = [conversation for conversations in fold.values() for conversation in conversations]
        for conversation in _repeated(ids):
            yield f"fold {name} has conversation '{conversation}' in two splits"
        for conversation in dict.fromkeys(ids):
            if conversation not in known:
                yield f"fold {name} names conversation '{conversation}', which the corpus lacks"


def _training_defects(splits: Mapping[str, Sequence[Conversation]]) -> Iterator[str]:
    if "train" not in splits:
        yield f"no training split, only {', '.join(splits)}" if splits else "no training split: the corpus is empty"
    elif not any(np.any(np.asarray(c.labels) != UNLABELLED) for c in splits["train"]):
        yield "train: no labelled utterances"


def _repeated_conversations(splits: Mapping[str, Sequence[Conversation]]) -> Iterator[str]:
    ids = {split: [c.id for c in conversations] for split, conversations in splits.items()}
    for split, names in ids.items():
        for name in _repeated(names):
            yield f"{split}, conversation '{name}': the id occurs {names.count(name)} times in the split"
    splits_of: dict[str, list[str]] = {}
    for split, names in ids.items():
        for name in dict.fromkeys(names):
            splits_of.setdefault(name, []).append(split)
    for name, found in splits_of.items():
        if len(found) > 1:
            yield f"conversation '{name}' is in more than one split: {', '.join(found)}"


def _conversation_defects(conversation: Conversation, card: Card) -> Iterator[str]:
    length = len(conversation)
    if not length:
        yield "no utterances"
        return
    for field in ("utterances", "speakers", "sentences"):
        if len(getattr(conversation, field)) != length:
            yield f"{len(getattr(conversation, field))} {field} but {length} labels"
    for name in _repeated(conversation.utterances):
        yield f"utterance id '{name}' occurs more than once: rename it, or tell merged conversations apart by their ids"
    yield from _label_defects(conversation, len(card.emotions))
    for modality, width in card.widths.items():
        if modality not in conversation.features or modality not in conversation.available:
            yield f"no {modality} features or no {modality} availability"
        elif card.frames:
            yield from _frame_defects(conversation, modality, width)
        else:
            yield from _vector_defects(conversation, modality, width)
    for modality in sorted(set(conversation.features) - set(card.widths)):
        yield f"{modality} features, but the card has no {modality}"
    yield from attribute_defects(conversation, card.attributes)


def _label_defects(conversation: Conversation, emotions: int) -> Iterator[str]:
    labels = np.asarray(conversation.labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        yield f"labels are {labels.dtype} of shape {labels.shape}, not one integer per utterance"
        return
    wrong = np.flatnonzero((labels != UNLABELLED) & ((labels < 0) | (labels >= emotions)))
    if wrong.size:
        yield (
            f"{_utterance(conversation, wrong[0])} has label {labels[wrong[0]]}{_and_more(wrong)}: with {emotions} "
            f"emotions, expected 0 to {emotions - 1}, or {UNLABELLED} for unlabelled"
        )


def _vector_defects(conversation: Conversation, modality: str, width: int) -> Iterator[str]:
    values = conversation.features[modality]
    if not isinstance(values, np.ndarray) and any(np.ndim(one) > 1 for one in values):
        yield f"{modality} has frames, but the card has one vector per utterance"
        return
    values, available = np.asarray(values), np.asarray(conversation.available[modality])
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        yield f"{modality} is {values.dtype} of shape {values.shape}, not floats [utterances, width]"
        return
    if values.shape[1] != width:
        yield f"{modality} has width {values.shape[1]}: expected {width}, as on the card"
    yield from _length_defects(conversation, modality)
    finite = np.isfinite(values)
    wrong = np.flatnonzero(~finite.all(axis=1))
    if wrong.size:
        yield (
            f"{modality} of {_utterance(conversation, wrong[0])} contains NaN or infinity{_and_more(wrong)}, "
            f"{np.count_nonzero(~finite)} values in total"
        )
    if len(values) == len(available):
        filled = np.flatnonzero(values.any(axis=1) & ~available.astype(bool))
        if filled.size:
            yield (
                f"{modality} of {_utterance(conversation, filled[0])} is marked unavailable but is not zero"
                f"{_and_more(filled)}"
            )


def _frame_defects(conversation: Conversation, modality: str, width: int) -> Iterator[str]:
    found = list(_length_defects(conversation, modality))
    if found:
        yield from found
        return
    available = conversation.available[modality]
    for position, (frames, there) in enumerate(zip(conversation.features[modality], available, strict=True)):
        where = f"{modality} of {_utterance(conversation, position)}"
        frames = np.asarray(frames)
        if frames.ndim != 2 or not np.issubdtype(frames.dtype, np.floating):
            yield f"{where} is {frames.dtype} of shape {frames.shape}, not floats [frames, width]"
        elif frames.shape[1] != width:
            yield f"{where} has width {frames.shape[1]}: expected {width}, as on the card"
        elif not np.isfinite(frames).all():
            yield f"{where} contains NaN or infinity, {np.count_nonzero(~np.isfinite(frames))} values in total"
        elif bool(there) != bool(len(frames)):
            yield f"{where} is marked {'' if there else 'un'}available but has {len(frames) or 'no'} frames"


def _length_defects(conversation: Conversation, modality: str) -> Iterator[str]:
    lengths = {"features": conversation.features[modality], "availability": conversation.available[modality]}
    for name, values in lengths.items():
        if len(values) != len(conversation):
            yield f"{modality} {name} of {len(values)} utterances but {len(conversation)} labels"


def _utterance(conversation: Conversation, position: int) -> str:
    known = position < len(conversation.utterances)
    return f"utterance '{conversation.utterances[position]}'" if known else f"utterance {position + 1}"


def _and_more(positions: np.ndarray) -> str:
    return f" (and {positions.size - 1} more)" if positions.size > 1 else ""


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
