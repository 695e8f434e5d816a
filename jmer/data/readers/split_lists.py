"""Which of a file's lists of conversations is which split."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jmer.data.corpus import SPLITS
from jmer.data.readers.conventions import SPLIT_NAMES
from jmer.errors import UserError

SKIPPED = "_"
# The pickles number the conversations of MELD consecutively: training from 0, then development, then test.
MELD_VALIDATION = range(1039, 1153)
MELD_TEST = range(1153, 1433)
EMORYNLP_SIZES = {659: "train", 89: "validation", 79: "test"}


class Division(NamedTuple):
    """Conversations by split.

    Attributes:
      splits: split name -> keys of conversations, in the order of the file.
      note: what the card should say of it, or "".
    """

    splits: Mapping[str, Sequence]
    note: str


def add_splits_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--splits A,B,...`, which is parsed into a tuple of split names or `_`."""
    parser.add_argument(
        "--splits",
        type=_split_names,
        metavar="train,validation,test",
        help=f"the splits that the lists of conversations are, in the order of the file; {SKIPPED} leaves a list out",
    )


def _split_names(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in (*SPLIT_NAMES, SKIPPED):
            raise argparse.ArgumentTypeError(
                f"'{name}' is not a split: expected {', '.join(SPLIT_NAMES)}, or {SKIPPED}"
            )
    splits = tuple(SPLIT_NAMES.get(name, SKIPPED) for name in names)
    for split in SPLITS:
        if splits.count(split) > 1:
            raise argparse.ArgumentTypeError(f"'{text}' has {split} twice: {SKIPPED} leaves a list out")
    return splits


def divide(path: Path, lists: Sequence[Any], documented: Sequence[str], given: Sequence[str] | None) -> Division:
    """Decides which list is which split.

    Args:
      path: the file, for errors.
      lists: lists, tuples, arrays or sets of keys of conversations.
      documented: the splits of these lists in the layout's documentation.
      given: the user's, see `add_splits_argument`.

    Raises:
      UserError: if it cannot be decided, the lists overlap, or another number of them is given.
    """
    ordered = [_ordered(keys) for keys in lists]
    if given is not None and len(given) != len(lists):
        raise UserError(
            f"--splits {','.join(given)}: {path} has {len(lists)} lists of conversations, of {_sizes(ordered)}"
        )
    names = given or _by_keys(ordered) or _published_or_documented(path, ordered, documented)
    division = {name: keys for name, keys in zip(names, ordered, strict=True) if name != SKIPPED}
    return _without_overlap(path, *_with_official_validation(division))


def _by_keys(lists: Sequence[Sequence]) -> Sequence[str] | None:
    """Returns the splits that the keys themselves name, as in tr_c0 or test_17."""
    found = []
    for keys in lists:
        words = {re.split(r"[^a-z]", str(key).lower())[0] for key in keys}
        word = words.pop() if len(words) == 1 else ""
        found.append(next((split for name, split in SPLIT_NAMES.items() if word in (name, name[:2])), None))
    return _complete(found)


def _published(lists: Sequence[Sequence]) -> Sequence[str] | None:
    """Returns the splits if the lists are those of a published division; what is not known is train and validation."""
    found: list[str | None] = [_published_split(keys, len(lists)) for keys in lists]
    unknown = sorted((len(keys), position) for position, keys in enumerate(lists) if not found[position])
    clear = len({size for size, _ in unknown}) == len(unknown) <= 2 and not any(_mixed(lists[p]) for _, p in unknown)
    if "test" in found and clear:
        for split, (_, position) in zip(("train", "validation"), reversed(unknown), strict=False):
            found[position] = split
    return _complete(found)


def _published_split(keys: Sequence, lists: int) -> str | None:
    if all(str(key)[:5] == "Ses05" for key in keys):
        return "test"
    if lists == len(EMORYNLP_SIZES) and all(re.fullmatch(r"\d+_\d+_\d+", str(key)) for key in keys):
        return EMORYNLP_SIZES.get(len(keys))
    numbers = {frozenset(MELD_VALIDATION): "validation", frozenset(MELD_TEST): "test"}
    return numbers.get(frozenset(keys))


def _mixed(keys: Sequence) -> bool:
    """Whether a list has session 5 of IEMOCAP and others, as in no published division."""
    sessions = {str(key)[:5] == "Ses05" for key in keys if re.match(r"Ses0\d", str(key))}
    return len(sessions) > 1


def _complete(found: Sequence[str | None]) -> Sequence[str] | None:
    names = [name for name in found if name]
    return names if len(names) == len(found) == len(set(names)) else None


def _published_or_documented(path: Path, lists: Sequence[Sequence], documented: Sequence[str]) -> Sequence[str]:
    published, longest = _published(lists), max((len(keys) for keys in lists), default=0)
    if len(lists) != len(documented):
        names = published
    elif published:
        names = documented if [*published] == [*documented] else None
    else:
        names = documented if len(lists[documented.index("train")]) == longest else None
    if names:
        return names
    example = {1: ("train",), 2: ("train", "test")}.get(len(lists), SPLITS)
    splits = ",".join((*example, *(SKIPPED,) * (len(lists) - len(example))))
    raise UserError(
        f"{path} has {len(lists)} lists of conversations, of {_sizes(lists)}, and nothing that tells which split each "
        f"is: give the splits in the order of the lists, for example --splits {splits}"
    )


def _with_official_validation(splits: Mapping[str, Sequence]) -> tuple[Mapping[str, Sequence], str]:
    """Returns the splits with MELD's development split restored if a file lists it under training, and a note."""
    if (
        "validation" in splits
        or set(splits.get("test", ())) != set(MELD_TEST)
        or not set(MELD_VALIDATION) <= set(splits.get("train", ()))
    ):
        return splits, ""
    train = [key for key in splits["train"] if key not in MELD_VALIDATION]
    note = " Validation: MELD's development split, which the file lists under training."
    return {"train": train, "validation": [*MELD_VALIDATION], "test": splits["test"]}, note


def _without_overlap(path: Path, splits: Mapping[str, Sequence], note: str) -> Division:
    train, validation = (set(splits.get(split, ())) for split in ("train", "validation"))
    if validation and validation < train:
        splits = {**splits, "train": [key for key in splits["train"] if key not in validation]}
        note += f" Validation: {len(validation)} conversations that the file also lists under training."
    names = [split for split in SPLITS if split in splits]
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            shared = [key for key in splits[one] if key in set(splits[other])]
            if shared:
                raise UserError(
                    f"{path}: {one} and {other} have {len(shared)} conversations in common, for example '{shared[0]}': "
                    f"say what the lists are with --splits, where {SKIPPED} leaves one out"
                )
    return Division({split: splits[split] for split in names}, note)


def _ordered(keys: Any) -> list:
    # The iteration order of a set may differ between runs.
    return sorted(keys, key=lambda key: (isinstance(key, str), key)) if isinstance(keys, set | frozenset) else [*keys]


def _sizes(lists: Sequence[Sequence]) -> str:
    return ", ".join(str(len(keys)) for keys in lists)
