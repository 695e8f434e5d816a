"""The error for a feature pickle of an unknown layout: its content, and a `--layout` as far as it can be guessed."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jmer.data.readers.pickle_elements import (
    FEATURES,
    NAMES,
    ROBERTA,
    describe,
    elements_of,
    is_integer,
    is_one_hot,
    kind_of_element,
    type_name,
)
from jmer.data.readers.split_lists import SKIPPED
from jmer.errors import UserError

SHOWN_ELEMENTS = 16


def unknown_layout(path: Path, content: Any, kinds: Sequence[str]) -> UserError:
    """Returns the error for a file of an unknown layout.

    Args:
      path: the file.
      content: what it contains.
      kinds: of its elements, see `kind_of_element`.
    """
    elements = elements_of(content)
    usable = [kind for kind in kinds if kind in ("strings", "integers", "numbers", "vectors", "listing")]
    if not usable or len(elements) > SHOWN_ELEMENTS:
        size = f"a {type_name(content)} of {len(elements)}, such as"
        what = f"{size} {_example(elements)}" if elements else f"one {type_name(content)}"
        return UserError(f"{path} contains {what}, not a tuple of dictionaries of conversations (--help lists layouts)")
    parts = [f"{key} {describe(element, kind)}" for (key, element), kind in zip(elements.items(), kinds, strict=True)]
    return UserError(
        f"{path} has an unknown layout (--help lists the known ones): it is a {type_name(content)} of {len(elements)}: "
        f"{'; '.join(parts)}; say what the elements are, as far as can be guessed --layout {_proposal(elements, kinds)}"
    )


def _example(elements: Mapping[Any, Any]) -> str:
    key, element = next(iter(elements.items()))
    return f"{key!r}: {describe(element, kind_of_element(element, set()))}"


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
        candidates: Iterable[str] = _guess_split(len(element), lists)
    elif kind == "strings":
        candidates = [_guess_strings(element), "sentences"]
    elif kind == "integers":
        candidates = ["ids"] if all(map(_increase, element.values())) else ["labels"]
    elif kind == "numbers":
        candidates = ["labels"]
    elif kind == "vectors" and all(map(is_one_hot, _first(element))):
        candidates = ["speakers"]
    elif kind == "vectors":
        candidates = FEATURES if widths.count(_width(element)) == len(ROBERTA) else ("text", "audio", "visual")
    else:
        return SKIPPED
    return next((name for name in candidates if name not in taken), "?")


def _guess_split(size: int, lists: Sequence[int]) -> Sequence[str]:
    if len(lists) == 2:
        return ("train", "test") if lists[0] == lists[1] else ("train" if size == max(lists) else "test",)
    return ("train",) if size == max(lists) and lists.count(size) == 1 else ()


def _increase(values: Sequence[Any]) -> bool:
    return all(is_integer(value) for value in values) and all(a < b for a, b in itertools.pairwise(values))


def _guess_strings(element: Mapping[Any, Sequence[str]]) -> str:
    values = [str(value) for conversation in element.values() for value in conversation]
    if any(" " in value for value in values):
        return "sentences"
    return "ids" if len(set(values)) > len(values) / 2 else "speakers"


def _width(element: Mapping[Any, Any]) -> int:
    return len(_first(element)[0])


def _first(element: Mapping[Any, Any]) -> Sequence[Any]:
    """Returns the values of the first conversation that is not empty, by which the kind of an element is told."""
    return next(values for values in element.values() if len(values))
