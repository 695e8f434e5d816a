"""Tables in files and folders: npz, parquet, csv, Arrow, and datasets that Hugging Face's library saved."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from jmer.data.corpus import CARD_FILE
from jmer.data.dataset_folders import is_dataset, load_datasets
from jmer.data.readers.arrow_tables import arrow_table, open_arrow, open_csv, open_parquet
from jmer.data.readers.conventions import SPLIT_NAMES
from jmer.data.readers.npz_tables import open_npz
from jmer.data.readers.tables import Table
from jmer.errors import UserError
from jmer.file_kinds import kind_of
from jmer.guard import guarded

_SUFFIXES = {
    ".npz": "npz",
    ".parquet": "parquet",
    ".csv": "text",
    ".tsv": "text",
    ".txt": "text",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_OPENERS: dict[str, Callable[[Path, Sequence[str]], Table]] = {
    "npz": lambda path, texts: open_npz(path),
    "parquet": lambda path, texts: open_parquet(path),
    "arrow": lambda path, texts: open_arrow(path),
    "text": open_csv,
}
_FOLDER_SUFFIXES = (".parquet", ".csv", ".npz", ".arrow")


def open_tables(source: Path, texts: Sequence[str]) -> list[Table]:
    """Opens the tables of a source.

    Args:
      source: a file as for `open_table`, a folder of such files, or a folder that `Dataset.save_to_disk` or
        `DatasetDict.save_to_disk` of Hugging Face wrote.
      texts: as for `open_table`.

    Raises:
      UserError: if there is nothing to read, or a file is missing, of another kind or damaged.
    """
    if not source.is_dir():
        return [open_table(source, texts)]
    if (source / CARD_FILE).is_file():
        raise UserError(f"{source} is a corpus of jmer already: give it to --corpus")
    if is_dataset(source):
        return _open_datasets(source)
    for suffix in _FOLDER_SUFFIXES:
        paths = sorted(path for path in source.rglob(f"*{suffix}") if not path.name.startswith("."))
        if paths:
            tables = [open_table(path, texts) for path in paths]
            return [
                table if table.split else dataclasses.replace(table, split=split_in(path.parent.name))
                for path, table in zip(paths, tables, strict=True)
            ]
    raise UserError(
        f"{source} has no {', '.join(_FOLDER_SUFFIXES)} files and is no dataset that save_to_disk wrote: give the files"
    )


def open_table(path: Path, texts: Sequence[str]) -> Table:
    """Opens a table in the format that its content has, or its suffix says.

    Args:
      path: a .npz, .parquet, .arrow, .csv or .tsv file.
      texts: names of the columns that a csv file has as text even if the cells look like numbers (`007`).

    Raises:
      UserError: if the file is missing, is something else or is damaged.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: check the path of the table")
    found, expected = kind_of(path), _SUFFIXES.get(path.suffix.lower())
    kind = "text" if found and found.name in ("text", "utf-16") else found.name if found else expected
    if kind not in _OPENERS or (kind == "text" and expected != "text"):
        if found:
            remedy = "if it is a table, name it .csv or .tsv" if kind == "text" else found.remedy
            raise UserError(f"{path} is {found.what}: {remedy}")
        raise UserError(f"{path}: expected a {', '.join(_SUFFIXES)} file, not '{path.suffix or path.name}'")
    table = _OPENERS[kind](path, texts)
    for name, count in Counter(table.names).items():
        if count > 1:
            raise UserError(f"{path} has {count} columns named '{name}': rename them")
    return dataclasses.replace(table, split=split_in(path.stem))


def split_in(name: str) -> str | None:
    """Returns the split that a name says, as `meld_train_final` does; None if it says none or several."""
    found = {SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def _open_datasets(folder: Path) -> list[Table]:
    named = load_datasets(folder, "save it again")
    with guarded(f"the Arrow files under {folder}", "save it again", described="are damaged"):
        arrow = {name: rows.with_format("arrow")[:] for name, rows in named.items()}
    return [dataclasses.replace(arrow_table(folder / name, t), split=split_in(name)) for name, t in arrow.items()]
