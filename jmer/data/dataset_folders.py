"""Folders that `save_to_disk` of Hugging Face's library wrote; it reads their metadata after a check.

dataset_dict.json                      {"splits": [SPLIT, ...]}, and a folder SPLIT with the files below for each
state.json, dataset_info.json          of one dataset
data-00000-of-00001.arrow, ...         its rows
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import datasets

from jmer.errors import UserError
from jmer.guard import guarded
from jmer.text import name_fault

DICT_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"


def is_dataset(folder: Path) -> bool:
    """Whether a folder looks like one that `save_to_disk` wrote."""
    return (folder / DICT_FILE).is_file() or (folder / STATE_FILE).is_file()


def load_datasets(folder: Path, remedy: str) -> dict[str, datasets.Dataset]:
    """Opens the datasets of a folder.

    Args:
      folder: that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.
      remedy: what to do if it is damaged.

    Returns:
      split -> dataset; a single one has the split "".

    Raises:
      UserError: naming the file that is missing or damaged.
    """
    splits = _splits(folder, remedy) if (folder / DICT_FILE).is_file() else [""]
    for split in splits:
        _check_metadata(folder / split, remedy)
    found = {}
    for split in splits:
        with guarded(f"the dataset in {folder / split}", remedy, described="is damaged"):
            found[split] = datasets.Dataset.load_from_disk(str(folder / split))
    return found


def _splits(folder: Path, remedy: str) -> list[str]:
    splits = _fields(folder / DICT_FILE, remedy).get("splits")
    if not isinstance(splits, list) or not splits or not all(map(_is_name, splits)):
        raise UserError(f"{folder / DICT_FILE} does not name the splits, which are folders beside it: {remedy}")
    return splits


def _check_metadata(folder: Path, remedy: str) -> None:
    path = folder / STATE_FILE
    files = _fields(path, remedy).get("_data_files")
    if not isinstance(files, list) or not files:
        raise UserError(f"{path} does not list the Arrow files: {remedy}")
    names = [file.get("filename") if isinstance(file, dict) else None for file in files]
    for name in names:
        if not _is_name(name):
            raise UserError(f"{path} lists what is no file beside it: {remedy}")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: {remedy}")
    path = folder / INFO_FILE
    features = _fields(path, remedy).get("features")
    with guarded(str(path), remedy, described="describes features that cannot be read"):
        datasets.Features.from_dict(features or {})


def _fields(path: Path, remedy: str) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing: {remedy}")
    with guarded(str(path), remedy, described="is damaged"):
        fields = json.loads(path.read_bytes())
        if not isinstance(fields, dict):
            raise TypeError(f"it contains a {type(fields).__name__}")
    return fields


def _is_name(name: Any) -> TypeGuard[str]:
    """Whether a value names a file in the same folder."""
    return isinstance(name, str) and not name_fault(name) and Path(name).name == name
