"""Labels: the flags that name emotions, declare labels unlabelled or merge them, and what a label in a file means."""

import argparse
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation, Corpus, any_labelled, with_labels
from jmer.data.emotions import in_standard_order
from jmer.errors import UserError
from jmer.warning import warn

_NUMERAL = re.compile(r"([+-]?[0-9]{1,9})(\.0*)?")  # pandas makes floats of integers if cells are empty


def add_label_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--emotions`, `--unlabelled` and `--merge`, which are parsed into tuples of names and a dictionary.

    Args:
      parser: to add them to.
      default: which emotions are used without `--emotions`, for the help text.
    """
    parser.add_argument(
        "--emotions",
        type=_names,
        metavar="A,B,...",
        help=f"names of the emotions in the order of their labels (default: {default})",
    )
    parser.add_argument(
        "--unlabelled",
        action=_Names,
        default=(),
        metavar="A,B,...",
        help="names of labels that are no emotions of the corpus: their utterances become unlabelled, as context",
    )
    parser.add_argument(
        "--merge",
        action=_Merges,
        default={},
        metavar="A=B,...",
        help="labels that become another emotion: exc=hap makes happy of excited; the order of the others is kept",
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"'{text}' has an empty or repeated name: give each emotion once")
    return names


class _Names(argparse.Action):
    """Collects comma lists of names."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            names = _names(values)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, tuple(dict.fromkeys((*getattr(namespace, self.dest), *names))))


class _Merges(argparse.Action):
    """Collects comma lists of `A=B` into a dictionary A -> B."""

    def __call__(self, parser, namespace, values, option_string=None):
        merged = dict(getattr(namespace, self.dest))
        for pair in values.split(","):
            source, equals, target = (part.strip() for part in pair.partition("="))
            if not (source and equals and target):
                raise argparse.ArgumentError(self, f"'{pair}' is not A=B: give the label and the emotion it becomes")
            if merged.get(source, target) != target:
                raise argparse.ArgumentError(self, f"'{source}' becomes both {merged[source]} and {target}: give one")
            merged[source] = target
        setattr(namespace, self.dest, merged)


@dataclasses.dataclass(frozen=True)
class LabelNames:
    """What the labels of a file may be.

    Attributes:
      emotions: names; an integer label is an index into them.
      declared: further names that only labels which are names may have, because `--unlabelled` or `--merge` removes
        them.
    """

    emotions: tuple[str, ...]
    declared: tuple[str, ...] = ()

    @classmethod
    def of(cls, emotions: Sequence[str], options: argparse.Namespace) -> "LabelNames":
        """The emotions, and what the flags of `add_label_arguments` declare besides."""
        removed = dict.fromkeys((*options.unlabelled, *options.merge))
        return cls(tuple(emotions), tuple(name for name in removed if name not in emotions))

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.emotions, *self.declared)

    def index(self, label: Any) -> int | None:
        """Returns the index in `all` of a label, -1 = unlabelled, None = it is none of them.

        A label is the name of an emotion, or an index, as a number or a numeral (`2`, `2.0`); -1, an empty cell and NaN
        are unlabelled. If emotions are named by numerals, a numeral is their name and not an index.
        """
        if label is None or label != label:
            return UNLABELLED
        whole = str(label)
        text = whole.strip()
        for name in (whole, text):
            if name in self.all:
                return self.all.index(name)
        if text.lower() in ("", "nan"):  # how NumPy writes NaN if it makes strings of a column
            return UNLABELLED
        numeral = _NUMERAL.fullmatch(str(int(label)) if isinstance(label, bool) else text)
        number = int(numeral[1]) if numeral else None
        if str(number) in self.all:
            return self.all.index(str(number))
        if number == UNLABELLED:
            return UNLABELLED
        named_by_numerals = any(map(_NUMERAL.fullmatch, self.emotions))
        in_range = number is not None and 0 <= number < len(self.emotions)
        return number if in_range and not named_by_numerals else None

    remedy = "name it in --emotions, or declare it with --unlabelled or --merge"

    def described(self) -> str:
        """Lists the emotions with their indices, for a message."""
        return ", ".join(f"{index} {name}" for index, name in enumerate(self.emotions))

    def of_corpus(self, labels: Iterable[int], merge: Mapping[str, str]) -> tuple[str, ...]:
        """Returns the names that a corpus with these labels has, before `--unlabelled` and `--merge` remove some.

        Raises:
          UserError: if a label that is to be merged is neither an emotion nor the label of any utterance.
        """
        used = set(labels)
        if not any(index >= len(self.emotions) for index in used):
            return self.emotions
        for index, name in enumerate(self.declared, len(self.emotions)):
            if name in merge and index not in used:
                raise UserError(
                    f"--merge {name}={merge[name]}: no utterance is labelled '{name}', and the emotions are "
                    f"{', '.join(self.emotions)}: correct the name, or drop it"
                )
        return self.all


def emotions_found(labels: Iterable[str], options: argparse.Namespace) -> tuple[str, ...]:
    """Returns the names of the labels in files, in the usual order of the emotions that remain, then those removed."""
    found, removed = set(labels), {*options.unlabelled, *options.merge}
    return (*in_standard_order(found - removed), *sorted(found & removed))


def labels_of(splits: Mapping[str, Sequence[Conversation]]) -> Iterator[int]:
    """Yields the labels of all utterances."""
    for conversations in splits.values():
        for conversation in conversations:
            yield from conversation.labels.tolist()


def relabelled(corpus: Corpus, unlabelled: Sequence[str], merge: Mapping[str, str]) -> tuple[Corpus, list[str]]:
    """Removes emotions from a corpus.

    Args:
      corpus: whose card names all of them.
      unlabelled: emotions whose utterances become unlabelled.
      merge: emotion -> the one that it becomes.

    Returns:
      The corpus, with what was done in its provenance, and lines that say it.

    Raises:
      UserError: if a name is not an emotion, contradicts another, or fewer than two emotions or no labels remain.
    """
    if not unlabelled and not merge:
        return corpus, []
    old = corpus.card.emotions
    _check(old, unlabelled, merge)
    emotions = tuple(name for name in old if name not in unlabelled and name not in merge)
    if len(emotions) < 2:
        raise UserError(f"--unlabelled and --merge leave {len(emotions)} of {len(old)} emotions: at least 2 are needed")
    new_index = [emotions.index(name) if name in emotions else UNLABELLED for name in (merge.get(n, n) for n in old)]
    table = np.array([*new_index, UNLABELLED], np.int32)  # -1 is the last entry
    conversations = {split: corpus.conversations(split) for split in corpus.splits}
    labels = np.concatenate([c.labels for split in conversations.values() for c in split])
    counts = {name: int(np.count_nonzero(labels == index)) for index, name in enumerate(old)}
    for name in (*unlabelled, *merge):
        if not counts[name] and any(counts.values()):
            warn(f"no utterance is labelled '{name}', which --unlabelled or --merge names")
    note = _note(counts, unlabelled, merge)
    card = dataclasses.replace(corpus.card, emotions=emotions, provenance=f"{corpus.card.provenance} {note}")
    changed = with_labels(
        corpus, {split: [table[c.labels] for c in listed] for split, listed in conversations.items()}, card
    )
    if any_labelled(conversations.get("train", ())) and not any_labelled(changed.conversations("train")):
        raise UserError(f"--unlabelled {','.join(unlabelled)}: no utterance of train keeps a label")
    return changed, [note]


def _check(emotions: Sequence[str], unlabelled: Sequence[str], merge: Mapping[str, str]) -> None:
    named = [("--unlabelled " + name, name) for name in unlabelled]
    named += [(f"--merge {source}={target}", name) for source, target in merge.items() for name in (source, target)]
    for flag, name in named:
        if name not in emotions:
            known = ", ".join(emotions) or "none"
            raise UserError(f"{flag}: '{name}' is neither an emotion nor the label of an utterance: they are {known}")
    for source, target in merge.items():
        flag = f"--merge {source}={target}"
        if source == target:
            raise UserError(f"{flag}: a label cannot become itself: drop it")
        if source in unlabelled or target in unlabelled:
            name = source if source in unlabelled else target
            raise UserError(f"{flag}: '{name}' is also --unlabelled: give it to one of the two")
        if target in merge:
            raise UserError(
                f"{flag}: '{target}' itself becomes '{merge[target]}': give the emotion that both become in the end"
            )


def _note(counts: Mapping[str, int], unlabelled: Sequence[str], merge: Mapping[str, str]) -> str:
    parts = []
    if merge:
        parts.append(", ".join(f"{counts[source]} of {source} became {target}" for source, target in merge.items()))
    if unlabelled:
        parts.append("unlabelled are " + ", ".join(f"{counts[name]} of {name}" for name in unlabelled))
    return f"Labels: {'; '.join(parts)}."
