"""The predictions in a run's directory, which are read back for ensembles and pooled scores, with their digests."""

from pathlib import Path

import pandas as pd

from jmer.digests import digest
from jmer.errors import UserError
from jmer.evaluation.predictions import read_predictions, write_predictions
from jmer.runs.directory import PREDICTION_FOLDER, read_as, write_json

DIGESTS_FILE = "digests.json"


def write_split(folder: Path, split: str, table: pd.DataFrame) -> Path:
    """Writes the predictions of a split and their digest; returns the path of the table.

    Args:
      folder: the run's directory, or another one for results.
      split: its name.
      table: see `jmer.evaluation.predictions.prediction_table`.

    Raises:
      UserError: if a file cannot be written.
    """
    path = _path(folder, split)
    write_predictions(table, path)
    try:
        others = _digests(folder)
    except UserError:  # the file is damaged, and made anew
        others = {}
    write_json(path.with_name(DIGESTS_FILE), {**others, path.name: digest(path.read_bytes())})
    return path


def read_split(folder: Path, split: str) -> pd.DataFrame:
    """Reads the predictions of a split that `write_split` wrote; those of an earlier version have no digest.

    Raises:
      UserError: if they are missing, or are not what was written.
    """
    path = _path(folder, split)
    written = _digests(folder).get(path.name)
    if written is not None and path.exists() and digest(path.read_bytes()) != written:
        raise UserError(f"{path} is not what was written: evaluate the run again")
    return read_predictions(path)


def _path(folder: Path, split: str) -> Path:
    return folder / PREDICTION_FOLDER / f"{split}.csv"


def _digests(folder: Path) -> dict[str, str]:
    path = folder / PREDICTION_FOLDER / DIGESTS_FILE
    return read_as(dict[str, str], path) if path.exists() else {}
