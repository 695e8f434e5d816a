"""The layouts of feature pickles: which element of a file is what, known, given by the user or guessed for an error."""

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.data.readers.conventions import SPLIT_NAMES
from jmer.data.readers.split_lists import SKIPPED
from jmer.errors import UserError

ROBERTA = ("text", "text2", "text3", "text4")
FEATURES = (*ROBERTA, "audio", "visual")
FIELDS = ("ids", "speakers", "labels", *FEATURES, "sentences")
"""What an element can be: a dictionary with a sequence for each conversation, one value per utterance."""
NAMES = {
    **{name: name for name in FIELDS},
    **SPLIT_NAMES,
    **dict.fromkeys(("id", "utterance_ids", "vids"), "ids"),
    "speaker": "speakers",
    **dict.fromkeys(("label", "emotion", "emotions"), "labels"),
    "glove": "text",
    **dict.fromkeys(("acoustic", "wave", "covarep"), "audio"),
    **dict.fromkeys(("vision", "video", "face", "facet"), "visual"),
    **dict.fromkeys(("sentence", "raw_text", "transcripts"), "sentences"),
}
"""Key of a dictionary -> what it is likely to be."""
SHOWN_ELEMENTS = 16


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
        given = _given_by_keys(content)
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
    if not 0 < len(elements) <= SHOWN_ELEMENTS:
        size = f"a {_type(content)} of {len(elements)}, such as"
        what = f"{size} {_example(elements)}" if elements else f"one {_type(content)}"
        raise UserError(f"{path} contains {what}, not a tuple of dictionaries of conversations (--help lists layouts)")
    raise UserError(
        f"{path} has an unknown layout (--help lists the known ones): it is {_description(content, kinds)}; say what "
        f"the elements are, as far as can be guessed --layout {_proposal(elements, kinds)}"
    )


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
    if not splits or not all(name in SPLIT_NAMES and _are_dictionaries(listed) for name, listed in splits.items()):
        return None
    fields: dict[str, dict[Any, Any]] = {}
    lists: list[list] = []
    for split, listed in splits.items():
        lists.append([one.get("vid", f"{split}_{number}") for number, one in enumerate(listed)])
        for key, one in zip(lists[-1], listed, strict=True):
            for name in (name for name in one if NAMES.get(name) in FIELDS and is_sequence(one[name])):
                fields.setdefault(NAMES[name], {})[key] = one[name]
    names = [SPLIT_NAMES[split] for split in splits]
    if "labels" not in fields or len(set(names)) < len(names):
        return None
    return Parts("dictionaries of conversations", len(splits), fields, lists, names, named=True)


def _are_dictionaries(value: Any) -> bool:
    return is_sequence(value) and all(isinstance(one, dict) for one in value)


def elements_of(content: Any) -> Mapping[Any, Any]:
    """Returns the elements of a file by position, or by key if it is a dictionary."""
    if isinstance(content, dict):
        return content
    return dict(enumerate(content)) if isinstance(content, list | tuple) else {}


def conversations_of(elements: Mapping[Any, Any]) -> set:
    """Returns the keys of all dictionaries among the elements."""
    return {key for element in elements.values() if isinstance(element, dict) for key in element}


def _given_by_keys(content: Mapping[Any, Any]) -> Mapping[int | str, str] | None:
    """Returns a layout if the keys of a dictionary are names of fields and splits."""
    given = {key: NAMES[str(key).lower()] for key in content if str(key).lower() in NAMES}
    complete = {"labels", "train"} <= set(given.values()) and len(set(given.values())) == len(given)
    return given if complete and not isinstance(content[next(k for k in given if given[k] == "train")], dict) else None


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
        expected = ("listing", "empty") if name in splits else _KINDS[name]
        if kind not in expected:
            raise UserError(
                f"--layout: {name} of {path} is {describe(element, kind)}: expected {' or '.join(expected)}"
            )
    fields = {name: element for name, element in chosen.items() if name not in splits}
    return Parts("as --layout says", len(elements), fields, [chosen[name] for name in splits], splits, named=True)


def _fits(kinds: Sequence[str], fields: Sequence[str]) -> bool:
    return len(kinds) == len(fields) and all(kind in _KINDS[field] for kind, field in zip(kinds, fields, strict=True))


def kind_of_element(element: Any, conversations: set) -> str:
    """Returns what an element consists of.

    Args:
      element: of a file.
      conversations: the keys of all dictionaries in the file.

    Returns:
      strings, integers, numbers or vectors: a dictionary that has one per utterance of each conversation; count: a
      dictionary with an integer per conversation; listing: of conversations; empty; values, or the name of a type.
    """
    if isinstance(element, set | frozenset) or is_sequence(element):
        if not len(element):
            return "empty"
        names, integers = all(map(is_string, element)), all(map(is_integer, element))
        return "listing" if names or (integers and not conversations.isdisjoint(element)) else "values"
    if not isinstance(element, dict) or not element:
        return type(element).__name__
    if all(is_integer(value) for value in element.values()):
        return "count"
    if not all(is_sequence(values) for values in element.values()):
        return type(element).__name__
    utterances = next((values for values in element.values() if len(values)), ())
    for kind, fits in _TESTS.items():
        if len(utterances) and all(fits(value) for value in utterances):
            return kind
    return "values"


def is_sequence(value: Any) -> bool:
    """Whether a value is a list, a tuple or an array of at least one dimension."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def is_string(value: Any) -> bool:
    """Whether a value is a string."""
    return isinstance(value, str)


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, or an array of one as tensors without dimensions become."""
    return isinstance(value, int | np.integer) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu"
    )


def is_number(value: Any) -> bool:
    """Whether a value is a number, or an array of one."""
    return (
        isinstance(value, float | np.floating)
        or is_integer(value)
        or (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "f")
    )


def is_vector(value: Any) -> bool:
    """Whether a value is a vector of numbers."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "biuf"
    return isinstance(value, list | tuple) and all(isinstance(number, int | float | np.number) for number in value)


def is_one_hot(value: Any) -> bool:
    """Whether a vector is 1 in one place and 0 elsewhere."""
    return is_vector(value) and sorted(value) == [0] * (len(value) - 1) + [1]


_TESTS = {"strings": is_string, "integers": is_integer, "numbers": is_number, "vectors": is_vector}


def _description(content: Any, kinds: Sequence[str]) -> str:
    elements = elements_of(content)
    parts = [f"{key} {describe(element, kind)}" for (key, element), kind in zip(elements.items(), kinds, strict=True)]
    shown = (
        parts if len(parts) <= SHOWN_ELEMENTS else [*parts[:SHOWN_ELEMENTS], f"and {len(parts) - SHOWN_ELEMENTS} more"]
    )
    return f"a {type(content).__name__} of {len(elements)}: {'; '.join(shown)}"


def describe(element: Any, kind: str) -> str:
    """Describes an element in a few words, with its sizes."""
    if not isinstance(element, dict) or not element:
        size = f" of {len(element)}" if hasattr(element, "__len__") else ""
        return f"{_type(element)}{size}" + (" keys" if kind == "listing" else "")
    key, values = next(iter(element.items()))
    shape = f"{len(values)} " if is_sequence(values) else ""
    if kind == "vectors":
        shape += f"x {len(values[0])} " if len(values) else ""
    elif kind == "values" and len(values) and isinstance(values[0], np.ndarray):
        shape += f"x {list(values[0].shape)} "
    return f"dict of {len(element)}, {key!r}: {shape}{kind}"


def _example(elements: Mapping[Any, Any]) -> str:
    key, element = next(iter(elements.items()))
    return f"{key!r}: {describe(element, kind_of_element(element, set()))}"


def _type(value: Any) -> str:
    return "array" if isinstance(value, np.ndarray) else type(value).__name__


def _proposal(elements: Mapping[Any, Any], kinds: Sequence[str]) -> str:
    """Returns the argument of `--layout` as far as types and sizes tell it, `?` where they do not."""
    lists = [len(element) for element, kind in zip(elements.values(), kinds, strict=True) if kind == "listing"]
    names: list[str] = []
    widths = [_width(element) for element, kind in zip(elements.values(), kinds, strict=True) if kind == "vectors"]
    for (key, element), kind in zip(elements.items(), kinds, strict=True):
        known = NAMES.get(str(key).lower())
        names.append(known if known and known not in names else _guess(element, kind, names, lists, widths))
    if all(isinstance(key, int) for key in elements):
        return ",".join(names)
    return ",".join(f"{name}={key}" for key, name in zip(elements, names, strict=True) if name != SKIPPED)


def _guess(element: Any, kind: str, taken: Sequence[str], lists: Sequence[int], widths: Sequence[int]) -> str:
    if kind == "listing":
        largest = len(element) == max(lists) and lists.count(len(element)) == 1
        candidates: Iterable[str] = ["train"] if largest else ["test"] if len(lists) == 2 else []
    elif kind == "strings":
        candidates = [_guess_strings(element), "sentences"]
    elif kind == "integers":
        increasing = all(list(values) == sorted(set(values)) for values in element.values())
        candidates = ["ids"] if increasing else ["labels"]
    elif kind == "numbers":
        candidates = ["labels"]
    elif kind == "vectors" and all(is_one_hot(value) for value in next(iter(element.values()))):
        candidates = ["speakers"]
    elif kind == "vectors":
        candidates = FEATURES if widths.count(_width(element)) == len(ROBERTA) else ("text", "audio", "visual")
    else:
        return SKIPPED
    return next((name for name in candidates if name not in taken), "?")


def _guess_strings(element: Mapping[Any, Sequence[str]]) -> str:
    values = [value for conversation in element.values() for value in conversation]
    if any(" " in value for value in values):
        return "sentences"
    return "ids" if len(set(values)) > len(values) / 2 else "speakers"


def _width(element: Mapping[Any, Any]) -> int:
    return next((len(values[0]) for values in element.values() if len(values)), 0)
