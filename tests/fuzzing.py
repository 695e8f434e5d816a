"""Changes of values and of bytes that hypothesis makes, and what must hold of whatever reads the result."""

import contextlib
import io
import os
import pickletools
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from names import KEPT, REFUSED

from jmer.errors import LONGEST_LINE, UserError
from jmer.text import printable

SECONDS, MEGABYTES = 20, 700
"""What reading one small source may take."""

NAMES = (
    *(*KEPT, *REFUSED),
    *("9" * 5_000, "[" * 3_000, "2020-99-99", "-1", "2.0", "inf", "1e999", "[0.5, 1.0]"),
)
NUMBERS = (
    *(-1, 0, 7, 2**31, -(2**31) - 1, 2**63, 2**64, -(2**100), 10**400),
    *(0.5, -0.0, 1e308, 1e-308, float("nan"), float("inf"), -float("inf"), 2.0**53),
)
EMPTY = (None, True, (), [], {}, "", b"")


def _shared(depth: int) -> list:
    """Returns lists in lists that share their elements: few bytes, and 10**depth numbers."""
    value: list = [0.5, 1.0]
    for _ in range(depth):
        value = [value] * 10
    return value


def _deep(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ARRAYS = (
    *(np.array(3), np.zeros((0, 2)), np.zeros((2, 0)), np.zeros((1 << 20, 0), np.float32), np.ones((2, 2, 2, 2))),
    *(np.array([2**63], np.uint64), np.array([1e300]), np.array([[np.nan, 1]]), np.array([1 + 2j])),
    *(np.array(["a", "b"]), np.array([b"a"]), np.array([None, [1, 2]], object), np.array([{}, 1], object)),
    *(np.array(["2020-01-01"], "M8[D]"), np.ones(3, "f2"), np.ones((2, 2), ">f8"), np.float64(2), np.array([True])),
)
NESTED = (_deep(5), _deep(90), _shared(2), [1, [2, [3]]], {"a": {"b": []}}, [(), ("a", 1)], {1: 2}, [[1.0], [1.0, 2.0]])
PLAIN = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NUMBERS),
    st.sampled_from(EMPTY),
    st.sampled_from(NESTED),
    st.text(max_size=6),
)
ODD = st.one_of(
    PLAIN,
    st.sampled_from(ARRAYS),
    st.recursive(
        PLAIN, lambda x: st.lists(x, max_size=3) | st.tuples(x, x) | st.dictionaries(st.text(max_size=2), x, max_size=2)
    ),
)

WHERE = st.integers(0, 1 << 16)
VALUE_EDITS = st.lists(
    st.tuples(st.sampled_from(("put", "put", "remove", "repeat", "rename")), WHERE, ODD), min_size=1, max_size=3
)
BYTES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        (b"\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\r", b"\n", b'"', b",", b"\x1b[2J", b"-1", b"9" * 400)
    ),
)
BYTE_EDITS = st.lists(
    st.tuples(
        st.sampled_from(("flip", "set", "cut", "insert", "repeat", "splice", "end", "operation", "argument")),
        WHERE,
        WHERE,
        BYTES,
    ),
    min_size=1,
    max_size=4,
)


def edited(value: Any, edits: Sequence[tuple[str, int, Any]]) -> Any:
    """Returns nested dictionaries, lists and tuples after changes of some of their items."""
    for kind, where, odd in edits:
        places = list(_places(value))
        if places:
            value = _with_change(value, places[where % len(places)], kind, odd)
    return value


def _places(value: Any) -> Iterator[tuple]:
    """Yields the path of every item of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield (key,)
        yield from ((key, *rest) for rest in _places(item))


def _with_change(value: Any, path: tuple, kind: str, odd: Any) -> Any:
    key, *rest = path
    items = dict(value.items() if isinstance(value, dict) else enumerate(value))
    if rest:
        items[key] = _with_change(items[key], tuple(rest), kind, odd)
    elif kind == "put":
        items[key] = odd
    elif kind == "remove":
        del items[key]
    elif kind == "rename" and isinstance(value, dict):
        with contextlib.suppress(TypeError):
            items[odd] = items.pop(key)
    if isinstance(value, dict):
        return items
    listed = list(items.values())
    if kind == "repeat" and not rest:
        listed.insert(key, items[key])
    return type(value)(listed)


def damaged(content: bytes, edits: Sequence[tuple[str, int, int, bytes]]) -> bytes:
    """Returns the content of a file after changes of some of its bytes, or of the operations of a pickle."""
    for kind, where, other, given in edits:
        if content:
            content = _with_edit(content, kind, where, other, given)
    return content


def _with_edit(content: bytes, kind: str, where: int, other: int, given: bytes) -> bytes:
    if kind in ("operation", "argument"):
        return _with_operation(content, kind, where, other, given)
    at, source, length = where % len(content), other % len(content), 1 + other % 24
    replaced = {
        "flip": (1, bytes([content[at] ^ 1 << other % 8])),
        "set": (len(given), given),
        "cut": (length, b""),
        "insert": (0, given),
        "repeat": (length, content[at : at + length] * 3),
        "splice": (length, content[source : source + length]),
        "end": (len(content), b""),
    }
    left_out, new = replaced[kind]
    return content[:at] + new + content[at + left_out :]


def _with_operation(content: bytes, kind: str, where: int, other: int, given: bytes) -> bytes:
    """Puts an operation of a pickle in the place of another, or other bytes in that of an argument."""
    try:
        starts = [position for _, _, position in pickletools.genops(content)]
    except Exception:
        return content
    bounds = [*starts, len(content)]
    at, source = where % len(starts), other % len(starts)
    operation = content[bounds[at] : bounds[at + 1]]
    new = content[bounds[source] : bounds[source + 1]] if kind == "operation" else operation[:1] + given
    return content[: bounds[at]] + new + content[bounds[at + 1] :]


def damaged_file(path: Path, edits: Sequence[tuple[str, int, int, bytes]], member: int | None) -> None:
    """Damages a file; in an archive one of its members if `member` is given, whose check sum is then right."""
    content = path.read_bytes()
    if member is None or not zipfile.is_zipfile(path):
        path.write_bytes(damaged(content, edits))
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = sorted(members)[member % len(members)]
    with zipfile.ZipFile(path, "w") as archive:
        for name, whole in members.items():
            archive.writestr(name, damaged(whole, edits) if name == chosen else whole)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Works in a new folder within the block."""
    with tempfile.TemporaryDirectory() as path, contextlib.chdir(path):
        yield Path(path)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Checks that the block takes little time and memory."""
    begin = time.process_time()
    _forget_peak()
    before = _memory("VmRSS")
    yield
    taken, grown = time.process_time() - begin, (_memory("VmHWM") - before) / 1024
    assert taken < SECONDS and grown < MEGABYTES, (taken, grown)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # which other systems than Linux do not have
        Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    """Returns a size in the status of this process, in kB; 0 where there is none."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
    return 0


def refusal(read: Callable[[], Any]) -> tuple[str, ...]:
    """Returns the lines with which reading refuses what it reads, () if it reads it, after checking both."""
    before = set(os.listdir())
    with bounded():
        try:
            read()
            return ()
        except UserError as error:
            lines = error.args
    assert lines and all(isinstance(line, str) and 0 < len(line) <= LONGEST_LINE for line in lines), lines
    for line in map(printable, lines):
        line.encode()  # as a terminal does
    assert set(os.listdir()) == before, set(os.listdir()) ^ before
    return lines


def kept_files(path: Path) -> Mapping[Path, bytes]:
    """Returns the contents of all files below a folder."""
    return {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
