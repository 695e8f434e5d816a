"""The elements of feature pickles: what they can be, and what they consist of."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jmer.data.readers.conventions import SPLIT_NAMES

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


def elements_of(content: Any) -> Mapping[Any, Any]:
    """Returns the elements of a file by position, or by key if it is a dictionary."""
    if isinstance(content, dict):
        return content
    return dict(enumerate(content)) if isinstance(content, list | tuple) else {}


def conversations_of(elements: Mapping[Any, Any]) -> set:
    """Returns the keys of all dictionaries among the elements."""
    return {key for element in elements.values() if isinstance(element, dict) for key in element}


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
        names, keys = all(map(is_string, element)), all(map(is_key, element))
        return "listing" if names or (keys and not conversations.isdisjoint(element)) else "values"
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


def is_key(value: Any) -> bool:
    """Whether a value can be the key of a conversation."""
    return isinstance(value, str | int | np.integer)


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of 64 bits, or an array of one as tensors without dimensions become."""
    if isinstance(value, int):
        return abs(value) < 1 << 64
    return isinstance(value, np.integer) or (
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


def is_flat(row: Any) -> bool:
    """Whether a value is a sequence that does not begin with another; NumPy refuses it if another comes later."""
    if isinstance(row, np.ndarray):
        return row.ndim == 1
    return isinstance(row, list | tuple) and not (row and isinstance(row[0], list | tuple | np.ndarray))


def is_one_hot(value: Any) -> bool:
    """Whether a vector is 1 in one place and 0 elsewhere."""
    return is_vector(value) and sorted(value) == [0] * (len(value) - 1) + [1]


_TESTS = {"strings": is_string, "integers": is_integer, "numbers": is_number, "vectors": is_vector}


def describe(element: Any, kind: str) -> str:
    """Describes an element in a few words, with its sizes."""
    if not isinstance(element, dict) or not element:
        size = f" of {len(element)}" if is_sequence(element) or isinstance(element, dict | set | str) else ""
        return f"{type_name(element)}{size}" + (" keys" if kind == "listing" else "")
    key, values = next(iter(element.items()))
    shape = f"{len(values)} " if is_sequence(values) else ""
    if kind == "vectors":
        shape += f"x {len(values[0])} " if len(values) else ""
    elif kind == "values" and len(values) and isinstance(values[0], np.ndarray):
        shape += f"x {list(values[0].shape)} "
    return f"dict of {len(element)}, {key!r}: {shape}{kind}"


def type_name(value: Any) -> str:
    """Returns the type of a value in the terms of a user."""
    return "array" if isinstance(value, np.ndarray) else type(value).__name__
