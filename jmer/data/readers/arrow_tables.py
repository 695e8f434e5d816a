"""Tables from Arrow: files of parquet, csv and Arrow itself, and folders of Hugging Face datasets."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from jmer.data.readers.limits import ROW_BYTES, reading, spend
from jmer.data.readers.tables import Table
from jmer.data.readers.text_files import csv_layout, encoding_of, head_of, read_text
from jmer.errors import UserError
from jmer.guard import RefusalError, guarded

CSV_COLUMN_BYTES = 6_000
"""About what Arrow takes for each column of a csv file, however few rows it has."""
OFFSET_BYTES = 4
_PARQUET_BYTES = {"BOOLEAN": 1, "INT64": 8, "DOUBLE": 8, "INT96": 8}
_AS_PLAIN = "save it as text in UTF-8, or as numbers"


def open_parquet(path: Path) -> Table:
    """Opens a parquet file."""

    def load() -> pa.Table:
        schema = pa.parquet.read_schema(path)
        # A column of one long string in all rows takes little in the file, and would take a copy for each row.
        strings = [field.name for field in schema if pa.types.is_string(field.type)]
        with pa.parquet.ParquetFile(path, read_dictionary=strings) as file:
            spend(_parquet_bytes(file.metadata), "its rows")
            return file.read()

    return _opened(path, load)


def _parquet_bytes(metadata: pa.parquet.FileMetaData) -> int:
    """Returns about how many bytes the columns of a parquet file take in memory, where equal strings are one."""
    size = metadata.num_rows * ROW_BYTES
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            each = _PARQUET_BYTES.get(column.physical_type, OFFSET_BYTES)
            size += max(column.num_values * each, column.total_uncompressed_size)
    return size


def open_arrow(path: Path) -> Table:
    """Opens a file of Arrow's stream format, as Hugging Face datasets caches them, or of its file format (Feather)."""

    def load() -> pa.Table:
        with pa.memory_map(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file:
                reader = pa.ipc.open_file(file)
                batches = map(reader.get_batch, range(reader.num_record_batches))
            else:
                batches = reader = pa.ipc.open_stream(file)
            return pa.Table.from_batches(map(_counted, batches), reader.schema)

    return _opened(path, load)


def _counted(batch: pa.RecordBatch) -> pa.RecordBatch:
    spend(batch.nbytes + batch.num_rows * ROW_BYTES, "its rows")
    return batch


def open_csv(path: Path, texts: Sequence[str]) -> Table:
    """Opens a csv file: separated by commas, semicolons or tabs, in any encoding that `read_text` decodes.

    Args:
      path: the file.
      texts: names of the columns whose cells are text even if they look like numbers (`007`).
    """

    def load() -> pa.Table:
        source = str(path) if encoding_of(path) == "utf-8" else pa.BufferReader(read_text(path).encode())
        head = head_of(path)
        layout = csv_layout(head)
        spend(head.partition("\n")[0].count(layout.delimiter) * CSV_COLUMN_BYTES, "its columns")
        try:
            return pa.csv.read_csv(
                source,
                parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types={name: pa.string() for name in texts}, decimal_point=layout.decimal_point
                ),
            )
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error):
                raise
            raise RefusalError("has a row of more than 1 MB: close its quotes, or shorten its cells") from error

    with guarded(str(path), "every row needs as many cells as the header", described="is not a table"), reading(path):
        return arrow_table(path, load())


def _opened(path: Path, load: Callable[[], pa.Table]) -> Table:
    with guarded(str(path), "save it again", described=f"is truncated or not a {path.suffix} file"), reading(path):
        table = load()
    return arrow_table(path, table)


def arrow_table(path: Path, table: pa.Table, unequal: Mapping[str, str] | None = None) -> Table:
    """Returns a table over Arrow's columns.

    Args:
      path: where it comes from.
      table: with the metadata of Hugging Face datasets, if it has any.
      unequal: columns that have lists of another length than the utterances of a conversation -> the difference.
    """
    with guarded(f"{path}: its Hugging Face schema", "save it again without", described="is damaged"):
        classes = _classes(table.schema)

    def column(name: str) -> pa.ChunkedArray:
        if unequal and name in unequal:
            raise UserError(f"{path}: column '{name}' has {unequal[name]}: expected one value per utterance")
        return table[name]

    def values(name: str) -> list:
        cells = column(name)
        if pa.types.is_binary(cells.type) or pa.types.is_large_binary(cells.type):
            cells = _decoded(path, name, cells)
        if pa.types.is_nested(cells.type):
            raise UserError(f"{path}: column '{name}' is {cells.type}: expected one value per row")
        kind = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
        with guarded(f"{path}: column '{name}'", _AS_PLAIN, described=f"has values that are no {kind}"):
            return _named(_pylist(cells), classes.get(name, ()))

    def array(name: str) -> np.ndarray:
        with guarded(f"{path}: column '{name}'", _AS_PLAIN):
            cells = column(name).combine_chunks()
            if pa.types.is_fixed_size_list(cells.type):
                cells = cells.cast(pa.list_(cells.type.value_type))
            return _stacked(path, name, cells) if _is_list(cells.type) else _numbers(path, name, cells)

    def by_utterance(name: str) -> Table | None:
        if name not in table.column_names or not _is_list_of_names(table[name].type):
            return None
        return _by_utterance(path, table, name)

    return Table(path, table.column_names, values, array, classes=classes, by_utterance=by_utterance)


def _pylist(cells: pa.ChunkedArray) -> list:
    """Returns the cells as Python's objects; those of a dictionary are one object where they are equal."""
    if not pa.types.is_dictionary(cells.type):
        return cells.to_pylist()
    values: list = []
    for chunk in cells.chunks:
        found = chunk.dictionary.to_pylist()
        values += [None if index is None else found[index] for index in chunk.indices.to_pylist()]
    return values


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_list_of_names(kind: pa.DataType) -> bool:
    """Whether cells are lists of names or numbers of speakers or labels, rather than vectors of features."""
    if not _is_list(kind):
        return False
    value = kind.value_type
    return pa.types.is_integer(value) or pa.types.is_string(value) or pa.types.is_large_string(value)


def _classes(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Returns the names of the classes of the columns that are `ClassLabel`s of Hugging Face, or lists of them."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    features: Any = json.loads(metadata).get("info", {}).get("features", {}) if metadata else {}
    found = {name: _class_names(feature) for name, feature in (features or {}).items()}
    return {name: names for name, names in found.items() if names}


def _class_names(feature: Any) -> tuple[str, ...]:
    if isinstance(feature, list):
        return _class_names(feature[0]) if feature else ()
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        names = tuple(feature.get("names") or ())
        if not all(isinstance(name, str) for name in names):
            raise TypeError("the names of its classes are no strings")
        return names
    return _class_names(feature.get("feature"))


def _decoded(path: Path, name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return cells.cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: column '{name}' contains bytes that are not UTF-8: save it as text") from error


def _named(values: list, names: Sequence[str]) -> list:
    return [names[v] if isinstance(v, int) and 0 <= v < len(names) else v for v in values] if names else values


def _by_utterance(path: Path, table: pa.Table, column: str) -> Table:
    """Returns a table with a row per element of the lists in a column; values that are no lists are repeated."""
    lengths = _lengths(table[column])
    rows = np.repeat(np.arange(table.num_rows), lengths)
    columns, unequal = {}, {}
    for name in table.column_names:
        values = table[name]
        if _is_list(values.type) and np.array_equal(_lengths(values), lengths):
            columns[name] = pa.compute.list_flatten(values)
            continue
        columns[name] = values.take(pa.array(rows))
        if _is_list(values.type):
            row = int(np.flatnonzero(_lengths(values) != lengths)[0])
            unequal[name] = f"{_lengths(values)[row]} values in row {row + 1} but '{column}' has {lengths[row]}"
    return arrow_table(path, pa.table(columns).replace_schema_metadata(table.schema.metadata), unequal)


def _lengths(lists: pa.ChunkedArray) -> np.ndarray:
    return pa.compute.fill_null(pa.compute.list_value_length(lists), 0).to_numpy()


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
    stacked[present] = values.reshape(lengths.size, width)
    return stacked


def _numbers(path: Path, name: str, column: pa.Array) -> np.ndarray:
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise UserError(f"{path}: column '{name}' is {column.type}: expected numbers")
    return column.to_numpy(zero_copy_only=False)
