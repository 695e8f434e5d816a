"""Tables from .npz files, an array per column."""

import io
import zipfile
from pathlib import Path

import numpy as np

from jmer.data.readers.limits import EMPTY_ROWS, ROW_BYTES, reading, spend
from jmer.data.readers.restricted_unpickler import array_size, check_characters, unpickler_for
from jmer.data.readers.tables import Table
from jmer.errors import UserError
from jmer.guard import guarded

_CELLS = (str, bytes, int, float, np.generic, type(None))


def open_npz(path: Path) -> Table:
    """Opens a .npz file; arrays of Python objects, as pandas gives them for text, are read without running any code."""
    with guarded(str(path), "save it again", described="is truncated or not a .npz file"):
        archive = zipfile.ZipFile(path)  # is closed with the table: to open it for each column reads its whole list
        members = {member.removesuffix(".npy"): member for member in archive.namelist()}

    def column(name: str) -> np.ndarray:
        with guarded(f"{path}: column '{name}'", "save the file again"), reading(path):
            return _array(archive, members[name], f"{path}: column '{name}'", path)

    def values(name: str) -> list:
        array = column(name)
        if array.ndim != 1:
            raise UserError(f"{path}: column '{name}' has shape {array.shape}: expected one value per row")
        with (
            guarded(f"{path}: column '{name}'", "save the file again", described="has values that are no text"),
            reading(path),
        ):
            spend(array.size * ROW_BYTES, "its rows")
            cells = (np.strings.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array).tolist()
        for row, cell in enumerate(cells if array.dtype.kind == "O" else ()):
            if not isinstance(cell, _CELLS):
                raise UserError(
                    f"{path}: column '{name}' has a {type(cell).__name__} in row {row + 1}: expected one value per row"
                )
        return cells

    def array(name: str) -> np.ndarray:
        array = column(name)
        if array.dtype.kind == "O":
            array = _stacked(path, name, array)
        if array.dtype.kind not in "fiub":
            raise UserError(f"{path}: column '{name}' is {array.dtype}: expected numbers")
        return array

    return Table(path, list(members), values, array)


def _array(archive: zipfile.ZipFile, member: str, where: str, path: Path) -> np.ndarray:
    """Reads an array after checking that its shape agrees with the bytes that there are."""
    spend(archive.getinfo(member).file_size, "its arrays")
    content = archive.read(member)
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        raise UserError(f"{where} is no array: save the columns with numpy.savez")
    file = io.BytesIO(content)
    major, _ = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, column_major, dtype = header(file)
    start = file.tell()
    if dtype.hasobject:
        return np.asarray(unpickler_for(content[start:])(file, encoding="latin1").load())
    count = array_size(shape)
    if (not dtype.itemsize and count > EMPTY_ROWS) or count * dtype.itemsize != len(content) - start:
        raise UserError(
            f"{where} has {len(content) - start} bytes, not those of an array of {dtype} of shape {shape}: save the "
            "file again"
        )
    check_characters(memoryview(content)[start:], dtype)
    flat = np.frombuffer(content, dtype, count, start) if dtype.itemsize else np.zeros(count, dtype)
    return flat.reshape(shape, order="F" if column_major else "C")


def _stacked(path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Makes a matrix or a vector of numbers of objects; None becomes NaN."""
    try:
        width = next((np.shape(row) for row in rows if row is not None), ())
        return np.array([np.full(width, np.nan) if row is None else row for row in rows], np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: column '{name}' contains objects that are not numbers of one width") from error
