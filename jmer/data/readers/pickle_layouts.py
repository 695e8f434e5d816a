"""The layouts of feature pickles: which element of a file is what, as published or as the user says."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jmer.data.readers.conventions import SPLIT_NAMES, split_named
from jmer.data.readers.layout_proposals import unknown_layout
from jmer.data.readers.pickle_elements import (
    FEATURES,
    FIELDS,
    NAMES,
    ROBERTA,
    conversations_of,
    describe,
    elements_of,
    is_key,
    is_sequence,
    kind_of_element,
)
from jmer.data.readers.split_lists import SKIPPED
from jmer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """A published layout: its fields, then its lists of conversations, then at most one more element.

    Attributes:
      name: who published it.
      fields: names out of `FIELDS`, or of other content that is not read.
      lists: the splits of its lists, in order.
    """

    name: str
    fields: tuple[str, ...]
    lists: tuple[str, ...] = ("train", "test")


_START = ("ids", "speakers", "labels")
_LISTS3 = ("train", "test", "validation")
LAYOUTS = (
    Layout("MMGCN", (*_START, "text", "audio", "visual", "sentences")),
    Layout("DialogueRNN's MELD", (*_START, "text", "audio", "sentences")),
    Layout("SDT", (*_START, *ROBERTA, "audio", "visual", "sentences")),
    Layout("GraphSmile's MELD", (*_START, "sentiments", *ROBERTA, "audio", "visual", "sentences")),
    Layout("COSMIC", ("speakers", "labels", *ROBERTA, "sentences"), _LISTS3),
    Layout("COSMIC", ("speakers", "labels", "sentiments", *ROBERTA, "sentences"), _LISTS3),
    Layout("COSMIC's sentences", ("speakers", "labels", "sentences"), _LISTS3),
    Layout("COSMIC's sentences", ("speakers", "labels", "sentiments", "sentences"), _LISTS3),
    Layout("DialogueGCN's DailyDialog", ("speakers", "text", "acts", "labels"), _LISTS3),
    Layout("DailyDialog", ("speakers", *ROBERTA, "acts", "labels"), _LISTS3),
    Layout("DialogueRNN's DailyDialog", ("speakers", "words", "lengths", "acts", "labels"), _LISTS3),
)

# The possible kinds of each element, as `kind_of_element` returns them.
_KINDS = {
    "ids": ("strings", "integers"),
    "speakers": ("strings", "integers", "vectors"),
    "labels": ("integers", "numbers"),
    "sentiments": ("integers",),
    "acts": ("integers",),
    "lengths": ("count",),
    "words": ("vectors",),
    "sentences": ("strings",),
    **dict.fromkeys(FEATURES, ("vectors",)),
}


@dataclasses.dataclass(frozen=True)
class Parts:
    """A file's content by what it is.

    Attributes:
      layout: name of the layout.
      size: number of elements.
      fields: field -> conversation -> a value per utterance.
      lists: the lists of conversations.
      documented: the splits of the lists by the layout, or as `--layout` names them.
      named: whether it was `--layout` that named them.
    """

    layout: str
    size: int
    fields: Mapping[str, Mapping[Any, Any]]
    lists: Sequence[Any]
    documented: Sequence[str]
    named: bool = False

    @property
    def has_roberta(self) -> bool:
        """Whether there are four text vectors per utterance."""
        return set(ROBERTA) <= set(self.fields)


def add_layout_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--layout`, which is parsed into a mapping from position or key to field, split or `_`."""
    parser.add_argument(
        "--layout",
        type=_layout,
        metavar="A,B,...",
        help=f"what the elements of a file of an unknown layout are, in order: {', '.join(FIELDS)}; train, validation, "
        f"test; {SKIPPED} for anything else. For a dictionary, its keys: text=KEY,labels=KEY,...",
    )


def _layout(text: str) -> dict[int | str, str]:
    entries = [entry.strip() for entry in text.split(",")]
    pairs: dict[int | str, str] = {}
    for position, entry in enumerate(entries):
        name, equals, key = entry.partition("=")
        name = SPLIT_NAMES.get(name, name)
        if bool(equals) != ("=" in entries[0]) or (equals and not key):
            raise argparse.ArgumentTypeError(f"'{text}' mixes positions and keys: give NAME,NAME,... or NAME=KEY,...")
        if name not in (*FIELDS, *SPLIT_NAMES, SKIPPED):
            known = ", ".join((*FIELDS, *dict.fromkeys(SPLIT_NAMES.values()), SKIPPED))
            raise argparse.ArgumentTypeError(f"'{name}' is not what an element can be: expected {known}")
        if name != SKIPPED and name in pairs.values():
            raise argparse.ArgumentTypeError(f"'{text}' has {name} twice: give each once")
        pairs[key if equals else position] = name
    return pairs


def parts_of(path: Path, content: Any, given: Mapping[int | str, str] | None) -> Parts:
    """Finds out what the elements of a file are.

    Args:
      path: the file.
      content: what it contains.
      given: see `add_layout_argument`.

    Raises:
      UserError: if the layout is unknown, with a proposal, or the given one does not fit.
    """
    elements = elements_of(content)
    if given is None and isinstance(content, dict):
        given = _layout_of_keys(content)
    if given is not None:
        return _given_parts(path, elements, given)
    found = _listed_conversations(content)
    if found:
        return found
    conversations = conversations_of(elements)
    kinds = [kind_of_element(element, conversations) for element in elements.values()]
    found = _known_parts(content, kinds, conversations)
    if found:
        return found
    raise unknown_layout(path, content, kinds)


def _known_parts(content: Any, kinds: Sequence[str], conversations: set) -> Parts | None:
    if not isinstance(content, list | tuple) or "listing" not in kinds:
        return None
    first = kinds.index("listing")
    after = next((i for i in range(first, len(kinds)) if kinds[i] != "listing"), len(kinds))
    if after == len(kinds) > first + 2 and conversations.isdisjoint(content[-1]):
        after -= 1  # names of something else, such as the classes
    for layout in LAYOUTS:
        if _fits(kinds[:first], layout.fields) and len(kinds) - after <= 1:
            fields = dict(zip(layout.fields, content[:first], strict=True))
            return Parts(layout.name, len(content), fields, content[first:after], layout.lists)
    return None


def _listed_conversations(content: Any) -> Parts | None:
    """Returns the parts of {split: [{vid, speakers, labels, text, ...}, ...]}, one dictionary per conversation."""
    splits = content if isinstance(content, dict) else {}
    if not splits or not all(split_named(str(name)) and _are_dictionaries(listed) for name, listed in splits.items()):
        return None
    fields: dict[str, dict[Any, Any]] = {}
    lists: list[list] = []
    for split, listed in splits.items():
        names = [one.get("vid") for one in listed]
        lists.append([name if is_key(name) else f"{split}_{i}" for i, name in enumerate(names)])
        for key, one in zip(lists[-1], listed, strict=True):
            for name in (name for name in one if NAMES.get(name) in FIELDS and is_sequence(one[name])):
                fields.setdefault(NAMES[name], {})[key] = one[name]
    named = [name for split in splits if (name := split_named(str(split)))]
    if "labels" not in fields or len(set(named)) < len(named):
        return None
    return Parts("dictionaries of conversations", len(splits), fields, lists, named, named=True)


def _are_dictionaries(value: Any) -> bool:
    return is_sequence(value) and all(isinstance(one, dict) for one in value)


def _layout_of_keys(content: Mapping[Any, Any]) -> Mapping[int | str, str] | None:
    """Returns a layout if the keys of a dictionary are names of fields and splits, and its elements are such."""
    given = {key: NAMES[str(key).lower()] for key in content if str(key).lower() in NAMES}
    names, conversations = list(given.values()), conversations_of(content)
    fits = all(kind_of_element(content[key], conversations) in _expected(name) for key, name in given.items())
    return given if fits and {"labels", "train"} <= set(names) and len(set(names)) == len(names) else None


def _expected(name: str) -> tuple[str, ...]:
    return ("listing", "empty") if name in SPLIT_NAMES else _KINDS[name]


def _given_parts(path: Path, elements: Mapping[Any, Any], given: Mapping[int | str, str]) -> Parts:
    if all(isinstance(key, int) for key in given) and len(given) != len(elements):
        raise UserError(
            f"--layout has {len(given)} names, but {path} {len(elements)} elements: {SKIPPED} leaves one out"
        )
    missing = [str(key) for key in given if key not in elements]
    if missing:
        raise UserError(f"--layout: {path} has no '{missing[0]}', only {', '.join(map(str, elements))}")
    chosen = {name: elements[key] for key, name in given.items() if name != SKIPPED}
    splits = tuple(name for name in chosen if name in SPLIT_NAMES)
    for name in ("labels", "train"):
        if name not in chosen:
            raise UserError(f"--layout has no {name}: name the element of {path} that is")
    conversations = conversations_of(elements)
    for name, element in chosen.items():
        kind = kind_of_element(element, conversations)
        if kind not in _expected(name):
            raise UserError(
                f"--layout: {name} of {path} is {describe(element, kind)}: expected {' or '.join(_expected(name))}"
            )
    fields = {name: element for name, element in chosen.items() if name not in splits}
    return Parts("as --layout says", len(elements), fields, [chosen[name] for name in splits], splits, named=True)


def _fits(kinds: Sequence[str], fields: Sequence[str]) -> bool:
    return len(kinds) == len(fields) and all(kind in _KINDS[field] for kind, field in zip(kinds, fields, strict=True))
