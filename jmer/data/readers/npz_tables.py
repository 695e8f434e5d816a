"""Tables from .npz files, an array per column."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jmer.data.readers.restricted_unpickler import one_line_errors, unpickler_for
from jmer.data.readers.tables import Table
from jmer.errors import UserError


def open_npz(path: Path) -> Table:
    """Opens a .npz file; arrays of Python objects, as pandas gives them for text, are read without running any code."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = arrays.files
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is truncated or not a .npz file: save it again") from error

    def column(name: str) -> np.ndarray:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return arrays[name]
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: column '{name}' is damaged: save the file again") from error
        except ValueError:
            return _objects(path, name)

    def values(name: str) -> list:
        array = column(name)
        if array.ndim != 1:
            raise UserError(f"{path}: column '{name}' has shape {array.shape}: expected one value per row")
        return (np.strings.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array).tolist()

    def array(name: str) -> np.ndarray:
        array = column(name)
        if array.dtype.kind == "O":
            array = _stacked(path, name, array)
        if array.dtype.kind not in "fiub":
            raise UserError(f"{path}: column '{name}' is {array.dtype}: expected numbers")
        return array

    return Table(path, names, values, array)


def _objects(path: Path, name: str) -> np.ndarray:
    """Reads an array of Python objects, which NumPy pickles."""
    with one_line_errors(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        major, _ = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        read(member)
        pickled = member.read()
        return np.asarray(unpickler_for(pickled)(io.BytesIO(pickled), encoding="latin1").load())


def _stacked(path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Makes a matrix or a vector of numbers of objects; None becomes NaN."""
    try:
        width = next((np.shape(row) for row in rows if row is not None), ())
        return np.array([np.full(width, np.nan) if row is None else row for row in rows], np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: column '{name}' contains objects that are not numbers of one width") from error
