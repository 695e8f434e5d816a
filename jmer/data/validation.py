"""What a corpus must satisfy, one clear line per defect."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jmer.batch import MODALITIES, UNLABELLED
from jmer.data.corpus import SPLITS, Card, Conversation, Corpus, build_corpus
from jmer.errors import UserError

SHOWN_DEFECTS = 10


def defects(splits: Mapping[str, Sequence[Conversation]], card: Card, *, for_training: bool = True) -> list[str]:
    """Lists what is wrong with conversations that are to become a corpus, one line per defect, none if it is sound.

    Args:
      splits: split name -> conversations.
      card: the card that they must fit.
      for_training: False for a corpus that a trained model is only to predict: it needs neither a training split nor
        labels.
    """
    return [
        *_card_defects(card),
        *_split_defects(splits),
        *(_training_defects(splits) if for_training else ()),
        *_repeated_conversations(splits),
        *(
            f"{split}, conversation '{conversation.id}': {defect}"
            for split, conversations in splits.items()
            for conversation in conversations
            for defect in _conversation_defects(conversation, card)
        ),
    ]


def checked_corpus(
    splits: Mapping[str, Sequence[Conversation]],
    card: Card,
    *,
    for_training: bool = True,
    folder: Path | None = None,
) -> Corpus:
    """Builds a corpus from conversations if they are sound.

    Args:
      splits: split name -> conversations.
      card: the corpus' card.
      for_training: as for `defects`.
      folder: as for `jmer.data.corpus.build_corpus`.

    Raises:
      UserError: with one line per defect, the first ten of them.
    """
    found = defects(splits, card, for_training=for_training)
    if found:
        raise UserError("\n".join(shortened(found)))
    return build_corpus(splits, card, folder=folder)


def require_sound(corpus: Corpus, *, for_training: bool = True) -> None:
    """Raises UserError, with the first defect, if a corpus is not sound; see `defects`."""
    splits = {split: corpus.conversations(split) for split in corpus.splits}
    found = defects(splits, corpus.card, for_training=for_training)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(
            f"corpus '{corpus.card.name}': {found[0]}{more}: mend its source and convert it again; "
            "`python -m jmer.data.inspect` shows all defects"
        )


def shortened(lines: Sequence[str], limit: int = SHOWN_DEFECTS) -> list[str]:
    """Returns the first `limit` lines, and how many more there are."""
    hidden = len(lines) - limit
    return [*lines[:limit], f"and {hidden} more"] if hidden > 0 else list(lines)


def mark_missing(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns features with NaN into features with a mask: an utterance that lacks some of a modality lacks all of it.

    Args:
      values: `[n, D]`, any floating or integer type.

    Returns:
      features: float32 `[n, D]`, zero where unavailable. Infinity stays, for `defects` to report.
      available: bool `[n]`, False where any feature of the utterance is NaN.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is reported
        values = np.array(values, np.float32)
    available = ~np.isnan(values).any(axis=1)
    values[~available] = 0
    return values, available


def _card_defects(card: Card) -> Iterator[str]:
    if not card.widths:
        yield "the corpus has no modality: name a column of features"
    for modality, width in card.widths.items():
        if modality not in MODALITIES:
            yield f"unknown modality '{modality}': the modalities are {', '.join(MODALITIES)}"
        if width < 1:
            yield f"{modality} has no features: its width is {width}"
    for name in _repeated(card.emotions):
        yield f"the emotion '{name}' is named twice in {', '.join(card.emotions)}"


def _split_defects(splits: Mapping[str, Sequence[Conversation]]) -> Iterator[str]:
    for split, conversations in splits.items():
        if split not in SPLITS:
            yield f"unknown split '{split}': the splits are {', '.join(SPLITS)}"
        if not conversations:
            yield f"{split}: no conversations; leave the split out"


def _training_defects(splits: Mapping[str, Sequence[Conversation]]) -> Iterator[str]:
    if "train" not in splits:
        yield f"no training split, only {', '.join(splits) or 'an empty corpus'}"
    elif not any(np.any(np.asarray(c.labels) != UNLABELLED) for c in splits["train"]):
        yield "train: not one labelled utterance"


def _repeated_conversations(splits: Mapping[str, Sequence[Conversation]]) -> Iterator[str]:
    ids = {split: [c.id for c in conversations] for split, conversations in splits.items()}
    for split, names in ids.items():
        for name in _repeated(names):
            yield f"{split}, conversation '{name}': its id occurs {names.count(name)} times in the split"
    homes = {}
    for split, names in ids.items():
        for name in dict.fromkeys(names):
            homes.setdefault(name, []).append(split)
    for name, of in homes.items():
        if len(of) > 1:
            yield f"conversation '{name}' is in more than one split: {', '.join(of)}"


def _conversation_defects(conversation: Conversation, card: Card) -> Iterator[str]:
    length = len(conversation)
    if not length:
        yield "it is empty"
        return
    for field in ("utterances", "speakers", "sentences"):
        if len(getattr(conversation, field)) != length:
            yield f"{len(getattr(conversation, field))} {field} but {length} labels"
    for name in _repeated(conversation.utterances):
        yield f"the utterance id '{name}' occurs more than once"
    yield from _label_defects(conversation, len(card.emotions))
    for modality, width in card.widths.items():
        if modality not in conversation.features or modality not in conversation.available:
            yield f"no {modality} features or no {modality} availability"
        elif card.frames:
            yield from _frame_defects(conversation, modality, width)
        else:
            yield from _vector_defects(conversation, modality, width)
    for modality in sorted(set(conversation.features) - set(card.widths)):
        yield f"{modality} features, which the card does not name"


def _label_defects(conversation: Conversation, emotions: int) -> Iterator[str]:
    labels = np.asarray(conversation.labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        yield f"labels are {labels.dtype} of shape {labels.shape}, not one integer per utterance"
        return
    wrong = np.flatnonzero((labels != UNLABELLED) & ((labels < 0) | (labels >= emotions)))
    if wrong.size:
        yield (
            f"{_utterance(conversation, wrong[0])} has label {labels[wrong[0]]}{_others(wrong)}; with {emotions} "
            f"emotions a label is 0 to {emotions - 1}, or {UNLABELLED} where there is none"
        )


def _vector_defects(conversation: Conversation, modality: str, width: int) -> Iterator[str]:
    values = conversation.features[modality]
    if not isinstance(values, np.ndarray) and any(np.ndim(one) > 1 for one in values):
        yield f"{modality} has several frames per utterance, but the card says one vector"
        return
    values, available = np.asarray(values), np.asarray(conversation.available[modality])
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        yield f"{modality} is {values.dtype} of shape {values.shape}, not one row of floats per utterance"
        return
    if values.shape[1] != width:
        yield f"{modality} is {values.shape[1]} wide, the corpus' {modality} is {width} wide"
    yield from _length_defects(conversation, modality)
    finite = np.isfinite(values)
    wrong = np.flatnonzero(~finite.all(axis=1))
    if wrong.size:
        yield (
            f"{modality} of {_utterance(conversation, wrong[0])} holds NaN or infinity{_others(wrong)}, "
            f"{np.count_nonzero(~finite)} values in all"
        )
    if len(values) == len(available):
        filled = np.flatnonzero(values.any(axis=1) & ~available.astype(bool))
        if filled.size:
            yield (
                f"{modality} of {_utterance(conversation, filled[0])} is marked unavailable but not zero"
                f"{_others(filled)}"
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
            yield f"{where} is {frames.dtype} of shape {frames.shape}, not floats, one row per frame"
        elif frames.shape[1] != width:
            yield f"{where} is {frames.shape[1]} wide, the corpus' {modality} is {width} wide"
        elif not np.isfinite(frames).all():
            yield f"{where} holds NaN or infinity, {np.count_nonzero(~np.isfinite(frames))} values in all"
        elif bool(there) != bool(len(frames)):
            yield f"{where} is marked {'' if there else 'un'}available but has {len(frames) or 'no'} frames"


def _length_defects(conversation: Conversation, modality: str) -> Iterator[str]:
    counted = {"features": conversation.features[modality], "availability": conversation.available[modality]}
    for name, values in counted.items():
        if len(values) != len(conversation):
            yield f"{modality} {name} of {len(values)} utterances but {len(conversation)} labels"


def _utterance(conversation: Conversation, position: int) -> str:
    known = position < len(conversation.utterances)
    return f"utterance '{conversation.utterances[position]}'" if known else f"utterance number {position + 1}"


def _others(positions: np.ndarray) -> str:
    return f" (and {positions.size - 1} more)" if positions.size > 1 else ""


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
