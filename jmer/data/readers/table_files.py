"""Tables in .npz, .parquet and .csv files."""

import dataclasses
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from jmer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose columns are read on access.

    Attributes:
      path: the file.
      names: names of the columns.
      values: name -> the column as a list with one entry per row, None where a cell is empty.
      array: name -> the column as numbers `[rows]` or `[rows, D]`, NaN where a cell is empty; raises UserError if it
        contains anything else.
    """

    path: Path
    names: Sequence[str]
    values: Callable[[str], list]
    array: Callable[[str], np.ndarray]


def open_table(path: Path, texts: Sequence[str]) -> Table:
    """Opens a table in the format that its suffix says.

    Args:
      path: a .npz, .parquet or .csv file.
      texts: names of the columns that a .csv file has as text even if the cells look like numbers (`007`).

    Raises:
      UserError: if the file is missing, has another suffix or is damaged.
    """
    if path.suffix not in _OPENERS:
        raise UserError(f"{path}: expected a .npz, .parquet or .csv file, not '{path.suffix or path.name}'")
    if not path.is_file():
        raise UserError(f"no file {path}: check the path of the table")
    table = _OPENERS[path.suffix](path, texts)
    for name in dict.fromkeys(table.names):
        if list(table.names).count(name) > 1:
            raise UserError(f"{path} has {list(table.names).count(name)} columns named '{name}': rename them")
    return table


def numbered_columns(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Groups names such as `text_0`, `text_1` or `text0`, `text1`: prefix -> number -> name."""
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)_?(\d+)", name)
        if match and match[1]:
            groups.setdefault(match[1], {})[int(match[2])] = name
    return groups


def listing(names: Sequence[str]) -> str:
    """Returns names for a message, with numbered columns as a range."""
    groups = {prefix: numbers for prefix, numbers in numbered_columns(names).items() if len(numbers) > 2}
    range_of = {
        name: f"{numbers[min(numbers)]}..{numbers[max(numbers)]}"
        for numbers in groups.values()
        for name in numbers.values()
    }
    return ", ".join(dict.fromkeys(range_of.get(name, name) for name in names))


def _open_npz(path: Path, texts: Sequence[str]) -> Table:
    with path.open("rb") as file:
        try:
            arrays = np.load(file, allow_pickle=False)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is truncated or not a .npz file: save it again") from error
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise UserError(f"{path} contains a single array without a name: save the columns with numpy.savez")
        names = arrays.files

    def column(name: str) -> np.ndarray:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return arrays[name]
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: column '{name}' is damaged: save the file again") from error
        except ValueError as error:
            raise UserError(
                f"{path}: column '{name}' contains Python objects, which could run code: save it as numbers or strings"
            ) from error

    def values(name: str) -> list:
        array = column(name)
        if array.ndim != 1:
            raise UserError(f"{path}: column '{name}' has shape {array.shape}: expected one value per row")
        return (np.strings.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array).tolist()

    def array(name: str) -> np.ndarray:
        array = column(name)
        if array.dtype.kind not in "fiub":
            raise UserError(f"{path}: column '{name}' is {array.dtype}: expected numbers")
        return array

    return Table(path, names, values, array)


def _open_parquet(path: Path, texts: Sequence[str]) -> Table:
    return _arrow_table(path, lambda: pa.parquet.ParquetFile(path).read())


def _open_csv(path: Path, texts: Sequence[str]) -> Table:
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    types = pa.csv.ConvertOptions(column_types={name: pa.string() for name in texts})
    return _arrow_table(path, lambda: pa.csv.read_csv(path, parse_options=parsing, convert_options=types))


_OPENERS = {".npz": _open_npz, ".parquet": _open_parquet, ".csv": _open_csv}


def _arrow_table(path: Path, load: Callable[[], pa.Table]) -> Table:
    try:
        table = load()
    except (OSError, pa.ArrowException) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path} is truncated or not a {path.suffix} file: save it again ({line})") from error

    def values(name: str) -> list:
        if pa.types.is_nested(table[name].type):
            raise UserError(f"{path}: column '{name}' is {table[name].type}: expected one value per row")
        return table[name].to_pylist()

    def array(name: str) -> np.ndarray:
        column = table[name].combine_chunks()
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            return _stacked(path, name, column)
        if pa.types.is_fixed_size_list(column.type):
            return _stacked(path, name, column.cast(pa.list_(column.type.value_type)))
        return _numbers(path, name, column)

    return Table(path, table.column_names, values, array)


def _stacked(path: Path, name: str, column: pa.ListArray) -> np.ndarray:
    present = column.is_valid().to_numpy(zero_copy_only=False)
    lengths = pa.compute.list_value_length(column.drop_null()).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if lengths.size else 0
    wrong = np.flatnonzero(lengths != width)
    if wrong.size:
        row = np.flatnonzero(present)[wrong[0]]
        raise UserError(
            f"{path}: column '{name}' has different widths, {width} values at first and {lengths[wrong[0]]} in row "
            f"{row + 1}: give {width} values in every row, or an empty cell"
        )
    values = _numbers(path, name, column.flatten())
    stacked = np.full((len(column), width), np.nan, np.result_type(values, np.float32))
    stacked[present] = values.reshape(-1, width)
    return stacked


def _numbers(path: Path, name: str, column: pa.Array) -> np.ndarray:
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise UserError(f"{path}: column '{name}' is {column.type}: expected numbers")
    return column.to_numpy(zero_copy_only=False)
