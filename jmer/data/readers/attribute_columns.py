"""Which columns or keys of a source are dimensional targets, and on which scales."""

import argparse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jmer.data.attributes import Scales, checked_scales
from jmer.data.readers.tables import Table, listing
from jmer.errors import UserError

NOTATION = "[NAME=]COLUMN:LOW:HIGH"


class AttributeColumn(NamedTuple):
    """An attribute, the column with its values, and the ends of its scale."""

    name: str
    column: str
    low: float
    high: float


def add_attribute_argument(parser: argparse.ArgumentParser, where: str) -> None:
    """Adds `--attributes`.

    Args:
      parser: of a reader.
      where: what of the source has the values, for the help.
    """
    parser.add_argument(
        "--attributes",
        type=lambda text: tuple(one.strip() for one in text.split(",")),
        metavar=f"{NOTATION},...",
        help=f"dimensional targets that models can learn besides the emotions: {where}, the ends of its scale, and a "
        "name if it is to have another one, as valence=V:1:5,sentiment:-3:3",
    )


def attribute_columns(given: Iterable[str]) -> tuple[AttributeColumn, ...]:
    """Returns the attributes that a flag or a YAML file describes.

    Raises:
      UserError: if one is not written as `NOTATION` says, or two have one name.
    """
    found = [_attribute_column(one) for one in given]
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise UserError(f"attributes: {', '.join(names)} are not all different: give each a name of its own")
    try:
        checked_scales(scales_of(found))
    except ValueError as error:
        raise UserError(f"attributes: {error}") from error
    return tuple(found)


def _attribute_column(text: str) -> AttributeColumn:
    name, _, rest = text.rpartition("=")
    try:
        column, low, high = rest.rsplit(":", 2)
        return AttributeColumn(name or column, column, float(low), float(high))
    except ValueError as error:
        raise UserError(f"attributes: '{text}' is not {NOTATION}, as valence=V:1:5: write it so") from error


def scales_of(columns: Sequence[AttributeColumn]) -> Scales:
    """Returns the scales of attributes, as a card has them."""
    return {one.name: (one.low, one.high) for one in columns}


def attribute_values(table: Table, attribute: AttributeColumn) -> np.ndarray:
    """Returns the values of an attribute in the rows of a table, float32 `[n]`, NaN where there is none.

    `vad_0` is the first of a column `vad` of vectors, if there is no column of that name.

    Raises:
      UserError: if there is no such column, or it has anything but a number per row.
    """
    column = attribute.column
    if column in table.names:
        values = table.array(column)
    else:
        whole, _, number = column.rpartition("_")
        if whole not in table.names or not number.isdecimal():
            raise UserError(
                f"{table.path} has no column '{column}' for {attribute.name}: it has {listing(table.names)}"
            )
        vectors = table.array(whole)
        if vectors.ndim != 2 or int(number) >= vectors.shape[1]:
            raise UserError(
                f"{table.path}: column '{whole}' has shape {vectors.shape}, and no '{column}' for {attribute.name}: "
                "number the entries of its vectors from 0"
            )
        values = vectors[:, int(number)]
    if values.ndim != 1:
        raise UserError(
            f"{table.path}: column '{column}' for {attribute.name} has shape {values.shape}: expected a number per "
            f"row; {column}_0 is the first of several"
        )
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is reported
        return values.astype(np.float32)
