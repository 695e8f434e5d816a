"""Features of utterances as arrays: vectors, or sequences of frames that are padded to one length."""

from typing import Any

import numpy as np

from jmer.data.readers.limits import spend
from jmer.data.readers.pickle_elements import is_sequence
from jmer.errors import UserError

DIMENSIONS = 3
NUMBER_BYTES = 8


def vectors_or_sequences(
    where: str, modality: str, values: Any, lengths: Any
) -> tuple[np.ndarray | list[np.ndarray], int]:
    """Returns the features of utterances without padding.

    Args:
      where: file and split, for errors.
      modality: its name, for errors.
      values: `[N, D]`, `[N, T, D]`, or a list of `[T_i, D]`.
      lengths: the number of real frames of each utterance; None = rows of zeros at either end are padding.

    Returns:
      vectors `[N, D]`, or a list of frames `[F_i, D]`; and how many values in sequences were not finite and became 0.

    Raises:
      UserError: if the values are no such numbers.
    """
    check_nesting(f"{where}: {modality}", values, DIMENSIONS)
    arrays = _arrays(where, modality, values)
    if isinstance(arrays, np.ndarray) and arrays.ndim == 2:
        return arrays, 0
    if any(frames.ndim != 2 for frames in arrays):
        raise UserError(f"{where}: {modality} has utterances of different dimensions: expected [T, D] for each")
    counts = [None] * len(arrays) if lengths is None else _counts(where, modality, lengths, len(arrays))
    sequences = [_without_padding(frames, count) for frames, count in zip(arrays, counts, strict=True)]
    wrong = sum(int(np.count_nonzero(~np.isfinite(frames))) for frames in sequences)
    if wrong:
        sequences = [np.nan_to_num(frames.astype(np.float32), posinf=0, neginf=0) for frames in sequences]
    return sequences, wrong


def check_nesting(what: str, values: Any, dimensions: int) -> None:
    """Checks what an array of nested lists would take, which may share so many lists that it has no end.

    Args:
      what: the values are, for errors.
      values: numbers, or arrays or lists of them.
      dimensions: the most levels of lists.

    Raises:
      UserError: if there are more levels, or more numbers than the file may take.
    """
    if not isinstance(values, list | tuple):
        return
    if not dimensions:
        raise UserError(f"{what} has lists in lists in more levels than it has dimensions: save it as an array")
    # Where a sequence comes after a number, NumPy refuses it at once.
    if not values or not isinstance(values[0], list | tuple | np.ndarray):
        spend(len(values) * NUMBER_BYTES, what)
        return
    for value in values:
        if isinstance(value, np.ndarray):
            spend(value.nbytes, what)
        check_nesting(what, value, dimensions - 1)


def _arrays(where: str, modality: str, values: Any) -> np.ndarray | list[np.ndarray]:
    try:
        ragged = isinstance(values, list | tuple) and len({np.shape(value) for value in values}) > 1
        arrays = [np.asarray(value, np.float32) for value in values] if ragged else np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: {modality} is not numbers: save it as an array") from error
    if isinstance(arrays, list):
        return arrays
    if arrays.ndim not in (2, 3) or arrays.dtype.kind not in "fiu":
        raise UserError(
            f"{where}: {modality} is {arrays.dtype} {list(arrays.shape)}: expected floats [N, D] or [N, T, D]"
        )
    if modality == "text" and arrays.dtype.kind != "f":
        raise UserError(f"{where}: text is {arrays.dtype}: token ids are not features, extract features from them")
    return arrays


def _counts(where: str, modality: str, lengths: Any, count: int) -> list[int]:
    if not is_sequence(lengths) or len(lengths) != count:
        raise UserError(f"{where}: the lengths of {modality} are not {count} numbers: give one for each sequence")
    check_nesting(f"{where}: the lengths of {modality}", lengths, 2)
    try:
        return [max(int(np.reshape(length, -1)[0]), 0) for length in lengths]
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise UserError(
            f"{where}: the lengths of {modality} are not all numbers: give one for each sequence"
        ) from error


def _without_padding(frames: np.ndarray, count: int | None) -> np.ndarray:
    """Returns the frames of a padded sequence `[T, D]`."""
    if count is None:
        rows = np.flatnonzero(frames.any(axis=1))
        return frames[rows[0] : rows[-1] + 1] if rows.size else frames[:0]
    padding = len(frames) - count
    if padding > 0 and frames[-padding:].any() and not frames[:padding].any():  # padded at the beginning
        return frames[padding:]
    return frames[:count]
