"""Folds for cross-validation that columns of a table declare."""

from collections.abc import Sequence

from jmer.data.corpus import SPLITS, Folds
from jmer.data.readers.mapping import Columns
from jmer.data.readers.rows import Rows
from jmer.errors import UserError


def declared_folds(rows: Rows, columns: Columns, conversations: Sequence[str]) -> Folds:
    """Returns the folds that a column of folds, or a column of splits for each fold, declares.

    Args:
      rows: of all tables.
      columns: their mapping.
      conversations: the id of the conversation of each row.

    Raises:
      UserError: if the rows of a conversation differ there.
    """
    if columns.fold and rows.fold:
        tested = _per_conversation(columns.fold, conversations, rows.fold)
        names = dict.fromkeys(tested.values())
        ordered = sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)
        return {
            name: {
                "train": [conversation for conversation, own in tested.items() if own != name],
                "test": [conversation for conversation, own in tested.items() if own == name],
            }
            for name in ordered
        }
    folds = {}
    for column, values in rows.split_per_fold.items():
        splits = _per_conversation(column, conversations, values)
        named = {split: [conversation for conversation, own in splits.items() if own == split] for split in SPLITS}
        folds[column] = {split: found for split, found in named.items() if found}
    return folds


def _per_conversation(column: str, conversations: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Returns conversation -> its value in a column."""
    found: dict[str, str] = {}
    for conversation, value in zip(conversations, values, strict=True):
        other = found.setdefault(conversation, value)
        if other != value:
            raise UserError(
                f"conversation '{conversation}' has '{other}' and '{value}' in column '{column}': give all its rows "
                "the same"
            )
    return found
