"""Conversations and corpora made in Python, without files."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jmer.batch import UNLABELLED
from jmer.data.attributes import checked_scales, unlabelled
from jmer.data.corpus import Card, Conversation, Corpus, Features, Folds, feature_width
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError
from jmer.modalities import MODALITIES
from jmer.text import name_fault

NAME = "in-memory"
PROVENANCE = "Made in memory."


def make_conversation(
    features: Mapping[str, ArrayLike | Sequence[ArrayLike | None]],
    *,
    speakers: Iterable[str | int] | None = None,
    labels: Iterable[str | int | None] | None = None,
    emotions: Sequence[str] | None = None,
    id: str = "",
    utterances: Iterable[str | int] | None = None,
    sentences: Iterable[str] | None = None,
    available: Mapping[str, ArrayLike] | None = None,
    attributes: Mapping[str, ArrayLike | Sequence[float | None]] | None = None,
) -> Conversation:
    """Makes a conversation of `n` utterances from arrays or lists.

    Args:
      features: modality (`text`, `audio`, `visual`) -> numbers of any type, converted to float32: `[n, D]`, one vector
        per utterance; or `n` arrays `[F_i, D]`, the frames of each utterance. A vector with a NaN, None, or an array
        without frames means that the modality is unavailable for that utterance.
      speakers: `n` names; None = the same speaker throughout.
      labels: `n` emotion names (then `emotions` is required) or indices; None, NaN, "" or -1 = unlabelled. None = all
        unlabelled.
      emotions: names of the emotions in the order of their indices.
      id: name of the conversation; "" = `make_corpus` names it after its split and position.
      utterances: `n` names, unique in the conversation; None = their positions.
      sentences: `n` transcripts; None = unknown.
      available: modality -> bool `[n]`, False = the modality is unavailable for that utterance whatever its features
        are. None = available unless `features` says otherwise.
      attributes: dimensional targets, e.g. valence: name -> `n` numbers on its scale, NaN or None = unlabelled. None =
        the conversation has none.

    Raises:
      UserError: naming the argument, what is expected and what was given.

    Example:
      >>> from jmer.data import make_conversation
      >>> conversation = make_conversation(
      ...     {"text": [[0.1, 0.2], [0.3, 0.4]], "audio": [[1.0], [float("nan")]]},
      ...     speakers=["Ann", "Ben"],
      ...     labels=["happy", None],
      ...     emotions=["happy", "sad"],
      ... )
      >>> conversation.labels.tolist(), conversation.available["audio"].tolist()
      ([0, -1], [True, False])
    """
    _check_modalities("features", features)
    if not features:
        raise UserError(f"features is empty: expected at least one of {', '.join(MODALITIES)}")
    parsed = {m: _parse_features(f"features['{m}']", features[m]) for m in MODALITIES if m in features}
    values = {m: of_modality for m, (of_modality, _) in parsed.items()}
    count = _common_length(values)
    masks = {m: mask for m, (_, mask) in parsed.items()}
    if available is not None:
        _check_modalities("available", available, among=tuple(values))
        masks |= {m: masks[m] & _mask(f"available['{m}']", mask, count) for m, mask in available.items()}
    names = _names("utterances", utterances, count) if utterances is not None else [str(i) for i in range(count)]
    if len(set(names)) < count:
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"utterances repeats '{repeated}': expected names that are unique in the conversation")
    if not isinstance(id, str):
        raise UserError(f"id is {id!r}: expected a string")
    _check_name("id", id)
    return Conversation(
        id=id,
        utterances=names,
        speakers=_names("speakers", speakers, count) if speakers is not None else ["speaker"] * count,
        labels=_label_indices(labels, emotions, count),
        features={m: _masked(values[m], masks[m]) for m in values},
        available=masks,
        sentences=_strings("sentences", sentences, count) if sentences is not None else [""] * count,
        attributes=_attribute_values(attributes or {}, count),
    )


def make_corpus(
    splits: Mapping[str, Sequence[Conversation]],
    card: Card | None = None,
    *,
    emotions: Sequence[str] | None = None,
    name: str = NAME,
    provenance: str = PROVENANCE,
    synthetic: bool = False,
    folds: Folds | None = None,
    attributes: Mapping[str, tuple[float, float]] | None = None,
) -> Corpus:
    """Makes a corpus in memory from conversations and checks it.

    A conversation without an id gets one from its split and position. A conversation that lacks one of the corpus'
    modalities has it unavailable in every utterance; one that lacks an attribute has no value of it.

    Args:
      splits: split name (`train`, `validation`, `test`) -> conversations. A corpus that is only predicted needs neither
        a training split nor labels.
      card: the corpus' card; None = made of the other arguments, with the conversations' modalities and widths.
      emotions: names of the emotions, which labels index; may be left out if there are no labels.
      name: short name of the corpus.
      provenance: where the features come from, one or two sentences.
      synthetic: whether the data are artificial.
      folds: for cross-validation (`data.folds=corpus`): name -> split -> ids of its conversations; a fold without a
        validation split holds one out. None = the corpus declares none.
      attributes: dimensional targets that conversations have -> the ends of their scales, e.g. `{"valence": (1, 5)}`.

    Raises:
      UserError: with one line per defect, the first ten of them; or if an argument has the wrong type.
    """
    listed = _listed(splits)
    if card is None:
        card = _derive_card(listed, emotions, name, provenance, synthetic, attributes or {})
    elif (emotions, name, provenance, synthetic, attributes) != (None, NAME, PROVENANCE, False, None):
        raise UserError(
            "emotions, name, provenance, synthetic and attributes are on the card: expected a card or these, got both"
        )
    completed = {
        split: [_complete(c, f"{split}-{position:04}", card) for position, c in enumerate(conversations)]
        for split, conversations in listed.items()
    }
    return checked_corpus(completed, card, for_training=False, folds=folds)


def _check_modalities(argument: str, given: Any, among: Sequence[str] = MODALITIES) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{argument} must be a mapping of modality -> values, got {type(given).__name__}")
    for modality in given:
        if modality not in among:
            raise UserError(f"{argument} has the key {modality!r}: expected {', '.join(among)}")


def _parse_features(argument: str, given: Any) -> tuple[Features, np.ndarray]:
    """Returns vectors float32 `[n, D]` or `n` arrays of frames float32 `[F_i, D]`, and availability bool `[n]`."""
    expected = "expected [n, D], one vector per utterance, or n arrays [frames, D]"
    try:
        utterances = np.asarray(given) if hasattr(given, "__array__") else given
        items = [None if item is None else np.asarray(item) for item in utterances]
    except (TypeError, ValueError) as error:
        raise UserError(f"{argument} is not an array ({error}): {expected}") from error
    if not items:
        raise UserError(f"{argument} has no utterances: {expected}")
    present = [item for item in items if item is not None]
    if not present:
        raise UserError(f"{argument} is None for every utterance: leave the modality out, or give an array with NaN")
    for item in present:
        if item.dtype.kind not in "iuf":
            raise UserError(f"{argument} contains values of type {item.dtype}: expected numbers")
    ranks = {item.ndim for item in present}
    if ranks not in ({1}, {2}):
        shapes = ", ".join(dict.fromkeys(str(item.shape) for item in present[:3]))
        raise UserError(f"{argument} has utterances of shape {shapes}: {expected}")
    widths = sorted({item.shape[-1] for item in present if item.ndim == 1 or len(item)})
    if len(widths) > 1 or widths == [0]:
        found = " and ".join(map(str, widths[:2]))
        raise UserError(f"{argument} has utterances of width {found}: expected one width, at least 1")
    width = widths[0] if widths else present[0].shape[1]
    parse = _parse_vectors if ranks == {1} else _parse_frames
    return parse(argument, items, width)


def _parse_vectors(argument: str, items: Sequence[np.ndarray | None], width: int) -> tuple[np.ndarray, np.ndarray]:
    missing = np.full(width, np.nan, np.float32)
    values, available = mark_missing(np.stack([missing if item is None else item for item in items]))
    _check_finite(argument, values)
    return values, available


def _parse_frames(argument: str, items: Sequence[np.ndarray | None], width: int) -> tuple[list[np.ndarray], np.ndarray]:
    frames = []
    for position, item in enumerate(items):
        if item is None or not len(item):
            frames.append(np.zeros((0, width), np.float32))
        else:
            with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is refused below
                frames.append(item.astype(np.float32))
            _check_finite(f"{argument}[{position}]", frames[-1])
    return frames, np.array([len(of_utterance) > 0 for of_utterance in frames])


def _check_finite(argument: str, values: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if wrong.size:
        raise UserError(f"{argument} contains NaN or infinity in row {wrong[0]}: expected finite float32 numbers")


def _common_length(values: Mapping[str, Features]) -> int:
    first, *others = values
    count, frames = len(values[first]), not isinstance(values[first], np.ndarray)
    for modality in others:
        if len(values[modality]) != count:
            raise UserError(
                f"features['{modality}'] has {len(values[modality])} utterances: expected {count}, as in "
                f"features['{first}']"
            )
        if frames == isinstance(values[modality], np.ndarray):
            raise UserError(
                f"features['{first}'] and features['{modality}'] differ in kind: expected one vector per utterance in "
                "all modalities, or frames in all"
            )
    return count


def _mask(argument: str, given: Any, count: int) -> np.ndarray:
    mask = np.asarray(given)
    if mask.dtype != bool or mask.shape != (count,):
        raise UserError(f"{argument} is {mask.dtype} of shape {mask.shape}: expected bool of shape ({count},)")
    return mask


def _masked(values: Features, mask: np.ndarray) -> Features:
    if isinstance(values, np.ndarray):
        return np.where(mask[:, None], values, np.float32(0))
    return [frames if there else frames[:0] for frames, there in zip(values, mask, strict=True)]


def _names(argument: str, given: Any, count: int) -> list[str]:
    names = _strings(argument, given, count)
    for position, name in enumerate(names):
        _check_name(f"{argument}[{position}]", name)
    return names


def _check_name(argument: str, name: str) -> None:
    fault = name_fault(name)
    if fault:
        raise UserError(f"{argument} {fault}")


def _strings(argument: str, given: Any, count: int) -> list[str]:
    items = _items(argument, given, count)
    for position, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, str | int | np.integer):
            raise UserError(f"{argument}[{position}] is {item!r}: expected a string")
    return [str(item) for item in items]


def _items(argument: str, given: Any, count: int) -> list:
    # Elements of arrays and of pandas' series become Python's own.
    items = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise UserError(f"{argument} is {items!r}: expected a sequence of {count}, one per utterance")
    items = list(items)
    if len(items) != count:
        raise UserError(f"{argument} has {len(items)} entries: expected {count}, one per utterance")
    return items


def _label_indices(labels: Any, emotions: Sequence[str] | None, count: int) -> np.ndarray:
    if labels is None:
        return np.full(count, UNLABELLED, np.int32)
    names = None if emotions is None else _emotion_names(emotions)
    items = _items("labels", labels, count)
    return np.array([_label_index(f"labels[{i}]", label, names) for i, label in enumerate(items)], np.int32)


def _label_index(argument: str, label: Any, emotions: tuple[str, ...] | None) -> int:
    if label is None or (isinstance(label, str) and not label) or (isinstance(label, float) and np.isnan(label)):
        return UNLABELLED
    if isinstance(label, str):
        if emotions is None:
            raise UserError(f"{argument} is '{label}': expected an index, or the argument emotions with the names")
        if label not in emotions:
            raise UserError(f"{argument} is '{label}': expected one of {', '.join(emotions)}")
        return emotions.index(label)
    highest = np.iinfo(np.int32).max if emotions is None else len(emotions) - 1
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not UNLABELLED <= label <= highest:
        bounds = "0 or above" if emotions is None else f"0 to {highest}"
        raise UserError(f"{argument} is {label!r}: expected an emotion's name, an index {bounds}, or -1 or None")
    return int(label)


def _attribute_values(attributes: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    if not isinstance(attributes, Mapping):
        raise UserError(f"attributes must be a mapping of name -> numbers, got {type(attributes).__name__}")
    return {name: _numbers(f"attributes[{name!r}]", given, count) for name, given in attributes.items()}


def _numbers(argument: str, given: Any, count: int) -> np.ndarray:
    items = [np.nan if item is None else item for item in _items(argument, given, count)]
    for position, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, int | float | np.integer | np.floating):
            raise UserError(f"{argument}[{position}] is {item!r}: expected a number, or None for none")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is reported
        return np.array(items, np.float32)


def _emotion_names(emotions: Any) -> tuple[str, ...]:
    if isinstance(emotions, str) or not isinstance(emotions, Iterable):
        raise UserError(f"emotions is {emotions!r}: expected a sequence of names")
    names = tuple(emotions)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"emotions has the entry {name!r}: expected a sequence of names")
        _check_name(f"emotion {name[:20]!r}", name)
    return names


def _listed(splits: Any) -> dict[str, list[Conversation]]:
    if not isinstance(splits, Mapping):
        raise UserError(f"splits must be a mapping of split name -> conversations, got {type(splits).__name__}")
    listed = {}
    for split, conversations in splits.items():
        if isinstance(conversations, Conversation) or not isinstance(conversations, Iterable):
            raise UserError(
                f"splits['{split}'] must be a sequence of conversations, got one {type(conversations).__name__}"
            )
        listed[split] = list(conversations)
        for position, conversation in enumerate(listed[split]):
            if not isinstance(conversation, Conversation):
                raise UserError(
                    f"splits['{split}'][{position}] must be a conversation, such as make_conversation returns, "
                    f"got {type(conversation).__name__}"
                )
    return listed


def _derive_card(
    splits: Mapping[str, Sequence[Conversation]],
    emotions: Sequence[str] | None,
    name: str,
    provenance: str,
    synthetic: bool,
    attributes: Mapping[str, tuple[float, float]],
) -> Card:
    conversations = [conversation for of_split in splits.values() for conversation in of_split]
    if emotions is None and any((np.asarray(c.labels) != UNLABELLED).any() for c in conversations):
        raise UserError("emotions is missing: expected the names of the emotions in the order of their labels")
    for c in conversations:
        for attribute in c.attributes.keys() - attributes:
            raise UserError(
                f"attributes has no '{attribute}': expected its scale, attributes={{'{attribute}': (1, 5)}}"
            )
    present = {modality for conversation in conversations for modality in conversation.features}
    # Unknown modalities go last, for the check to report.
    modalities = [*(m for m in MODALITIES if m in present), *sorted(present - set(MODALITIES))]
    examples = {m: next(c.features[m] for c in conversations if m in c.features) for m in modalities}
    try:
        scales = checked_scales(attributes)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Card(
        name=name,
        widths={m: feature_width(values) for m, values in examples.items()},
        emotions=() if emotions is None else _emotion_names(emotions),
        provenance=provenance,
        synthetic=synthetic,
        frames=any(c.has_frames for c in conversations),
        attributes=scales,
    )


def _complete(conversation: Conversation, name: str, card: Card) -> Conversation:
    """Returns a conversation with an id, and with the card's modalities: one that it lacks is unavailable."""
    count = len(conversation)
    absent = [m for m in card.widths if m not in conversation.features and m not in conversation.available]
    empty: dict[str, Features] = {
        m: [np.zeros((0, card.widths[m]), np.float32)] * count
        if card.frames
        else np.zeros((count, card.widths[m]), np.float32)
        for m in absent
    }
    return dataclasses.replace(
        conversation,
        id=conversation.id or name,
        features={**conversation.features, **empty},
        available={**conversation.available, **{m: np.zeros(count, bool) for m in absent}},
        attributes={name: unlabelled(count) for name in card.attributes} | dict(conversation.attributes),
    )
