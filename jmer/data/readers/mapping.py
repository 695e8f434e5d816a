"""Mappings from the fields of a corpus to the columns of a table, combined from a preset, a YAML file and flags."""

import argparse
import dataclasses
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jmer.data.readers.attribute_columns import (
    NOTATION,
    AttributeColumn,
    add_attribute_argument,
    attribute_columns,
)
from jmer.data.readers.conventions import SPLIT_NAMES
from jmer.data.readers.labels import add_label_arguments
from jmer.data.readers.presets import PRESETS
from jmer.data.readers.text_files import read_text
from jmer.errors import UserError
from jmer.file_kinds import check_kind
from jmer.guard import guarded
from jmer.modalities import MODALITIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The column of each field, see `jmer.data.readers.table`; None = the table has no such column."""

    conversation: str | tuple[str, ...]
    order: str | None = None
    speaker: str
    label: str | None = None
    emotions: tuple[str, ...] = ()
    split: str | None = None
    fold: str | None = None
    split_per_fold: tuple[str, ...] = ()
    utterance: str | None = None
    sentence: str | None = None
    text: str | None = None
    audio: str | None = None
    visual: str | None = None
    attributes: tuple[AttributeColumn, ...] = ()
    ids_per_split: bool = False

    def id_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """The columns that form the id of a conversation.

        Args:
          names: of the table's columns; one that contains a comma is not taken for several.
        """
        if isinstance(self.conversation, tuple):
            return self.conversation
        whole = self.conversation in names
        return (self.conversation,) if whole else tuple(name.strip() for name in self.conversation.split(","))

    def texts(self) -> list[str]:
        """The columns whose cells are text even if they look like numbers."""
        given = [getattr(self, field) for field in TEXT_FIELDS if getattr(self, field)]
        whole = [self.conversation] if isinstance(self.conversation, str) else []
        return [*whole, *self.id_columns(()), *given, *self.split_per_fold]

    @property
    def declares_folds(self) -> bool:
        """Whether columns say the folds of a cross-validation."""
        return bool(self.fold or self.split_per_fold)

    @property
    def modalities(self) -> dict[str, str]:
        """The columns of features: modality -> column."""
        return {m: getattr(self, m) for m in MODALITIES if getattr(self, m)}


# The fields of `Columns` that name a column, and its content, for the help text.
COLUMN_FLAGS = {
    "conversation": "names or numbers of conversations; several, as A,B,C, if only all of them together identify one",
    "order": "sort keys of the utterances in a conversation",
    "speaker": "speakers",
    "label": "emotions, names or numbers",
    "split": f"splits ({', '.join(SPLIT_NAMES)}); without one, the names of the files say them",
    "fold": "folds for cross-validation, names or numbers: a conversation is tested in the one that its rows have",
    "utterance": "names or numbers of utterances",
    "sentence": "transcripts",
    "text": "text features",
    "audio": "audio features",
    "visual": "visual features",
}
CHARACTERS, DIGITS, BRACKETS = 1 << 16, 20, 100  # of a YAML file; PyYAML takes quadratic time for brackets in brackets
TEXT_FIELDS = ("speaker", "label", "split", "fold", "utterance", "sentence")


class _Kind(NamedTuple):
    """What a field of a YAML file may be."""

    types: tuple[type, ...]
    described: str


_YAML_KINDS = dict.fromkeys(COLUMN_FLAGS, _Kind((str,), "the name of a column")) | {
    "conversation": _Kind((str, list), "the name of a column, or a list of them"),
    "emotions": _Kind((list,), "a list of names"),
    "split_per_fold": _Kind((list,), "a list of columns"),
    "attributes": _Kind((list,), f"a list of {NOTATION}"),
    "ids_per_split": _Kind((bool,), "true or false"),
}


def add_mapping_arguments(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Adds the flags of a mapping, with one flag per given field of `COLUMN_FLAGS`."""
    parser.add_argument("--preset", help=f"a known mapping: {', '.join(PRESETS)}")
    parser.add_argument("--columns", type=Path, metavar="YAML", help="a file with a mapping; overrides the preset")
    for field in fields:
        meaning = COLUMN_FLAGS[field]
        parser.add_argument(f"--{field}", metavar="COLUMN", help=f"the column of {meaning}; overrides both")
    add_label_arguments(parser, "those of the preset or the YAML file")
    add_attribute_argument(parser, "a column of numbers")
    parser.add_argument(
        "--split-per-fold",
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        metavar="A,B,...",
        help="for cross-validation, a column of splits for each fold, which is named after it; a conversation with an "
        "empty cell is not in that fold",
    )
    parser.add_argument(
        "--ids-per-split",
        action="store_true",
        default=None,
        help="conversations of different splits have the same ids: prefix each id with its split",
    )
    parser.add_argument(
        "--predict-only",
        action="store_true",
        help="the corpus is only predicted: labels and splits are optional (without splits, all rows are test)",
    )


def read_mapping(options: argparse.Namespace, flags: Sequence[str]) -> Columns:
    """Combines a preset, a YAML file and flags to a mapping.

    Args:
      options: parsed flags of `add_mapping_arguments`.
      flags: the fields that were given to it.

    Raises:
      UserError: if a field is unknown, or a required one is missing.
    """
    fields: dict[str, Any] = {}
    if options.preset is not None:
        if options.preset not in PRESETS:
            raise UserError(f"unknown preset '{options.preset}': the presets are {', '.join(PRESETS)}")
        fields |= PRESETS[options.preset]
    if options.columns is not None:
        fields |= _yaml_mapping(options.columns)
    given = (*flags, "split_per_fold", "attributes", "ids_per_split")
    fields |= {f: getattr(options, f) for f in given if getattr(options, f) is not None}
    if options.emotions is not None:
        fields["emotions"] = options.emotions
    for field in ("conversation", "speaker"):
        if not fields.get(field):
            raise UserError(f"no column for the {field}: give --{field} COLUMN, --columns YAML or --preset NAME")
    if not fields.get("label") and not options.predict_only:
        raise UserError("no column for the label: give --label COLUMN, or --predict-only to do without")
    if fields.get("fold") and fields.get("split_per_fold"):
        raise UserError("--fold and --split-per-fold both say the folds: give one of them")
    return Columns(**fields | {"attributes": attribute_columns(fields.get("attributes", ()))})


class _NoAliases(yaml.SafeLoader):
    """A loader without aliases, with which a few lines can name billions of items."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, *NAME, which mappings of columns do not need")
        return super().compose_node(parent, index)


def _short_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > DIGITS:
        raise yaml.YAMLError(f"it has an integer of more than {DIGITS} digits")
    return loader.construct_yaml_int(node)


_NoAliases.add_constructor("tag:yaml.org,2002:int", _short_integer)


def _yaml_mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"no file {path}: --columns names a YAML file with a mapping of columns")
    check_kind(path, "text", "json", "utf-16", "empty")
    text = read_text(path)
    if len(text) > CHARACTERS or text.count("[") + text.count("{") > BRACKETS:
        raise UserError(f"{path} is too large or too nested for a mapping: write one `field: column` per line")
    with guarded(str(path), "write one `field: column` per line", described="is not a YAML file"):
        fields = yaml.load(text, _NoAliases)
    if not isinstance(fields, dict):
        raise UserError(f"{path} is not a mapping: write one `field: column` per line")
    for field, value in fields.items():
        if field not in _YAML_KINDS:
            raise UserError(f"{path}: unknown field '{field}': the fields are {', '.join(_YAML_KINDS)}")
        items = value if isinstance(value, list) else ()
        if not isinstance(value, _YAML_KINDS[field].types) or any(isinstance(item, list | dict) for item in items):
            raise UserError(f"{path}: {field} is {reprlib.repr(value)}: expected {_YAML_KINDS[field].described}")
    return {field: tuple(map(str, value)) if isinstance(value, list) else value for field, value in fields.items()}
