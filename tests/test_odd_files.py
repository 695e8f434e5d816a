"""Odd, damaged and hostile tables get one line with what is wrong, in little time and memory."""

import io
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmer.command import exit_status
from jmer.data.convert import convert

FLAGS = ["--conversation=talk", "--speaker=who", "--label=emotion", "--emotions=A,B", "--split=split", "--text=words"]
COLUMNS = {
    "talk": np.array(["a", "a", "b"]),
    "who": np.array(["M", "F", "M"]),
    "emotion": np.array(["A", "B", "A"]),
    "split": np.array(["train", "train", "test"]),
    "words": np.ones((3, 2), np.float32),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(capsys, *arguments, megabytes=150, seconds=5):
    """Returns the line that a conversion ends with, after checking that it took little time and memory."""
    tracemalloc.start()
    begin = time.process_time()
    status = exit_status(convert, [*arguments, "corpus"])
    taken, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    line = capsys.readouterr().err
    assert status == 2 and len(line.splitlines()) == 1, line
    assert taken < seconds and peak < megabytes << 20, (taken, peak >> 20)
    return line


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text, content=b""):
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + content


def write_npz(compression=zipfile.ZIP_STORED, **changed):
    with zipfile.ZipFile("t.npz", "w", compression) as archive:
        for name, array in COLUMNS.items():
            archive.writestr(f"{name}.npy", changed.get(name) or npy(array))


def shaped(shape, dtype="<f4"):
    return header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"words": shaped("(4294967296, 0)")},
            "column 'words' is truncated or damaged: save the file again (an array has",
        ),
        ({"talk": shaped("(1099511627776,)", "<U0")}, "column 'talk' has 0 bytes, not those of an array"),
        ({"words": shaped("(" + "9" * 100 + ", 2)")}, "column 'words' has 0 bytes, not those of an array"),
        ({"words": shaped("(1000000000000, 2)")}, "column 'words' has 0 bytes, not those of an array"),
        ({"words": shaped("(" * 3000 + "3, 2" + ")" * 3000)}, "column 'words' is"),
        ({"words": b"no array"}, "column 'words' is no array: save the columns with numpy.savez"),
        ({"words": npy(np.ones((3, 2)))[:-1]}, "column 'words' has 47 bytes, not those of an array of float64"),
        *(
            (
                {"who": shaped("(3,)", f"{order}U1") + code * 3},
                "column 'who' is truncated or damaged: save the file again",
            )
            for order, code in (("<", b"\xff\xff\xff\x7f"), ("<", b"i\0\0\x01"), (">", b"\x01\0\0i"))
        ),
    ],
)
def test_npz_members(changed, expected, capsys):
    write_npz(**changed)
    assert expected in refusal(capsys, "table", "t.npz", *FLAGS)


def test_npz_compression(capsys):
    write_npz(zipfile.ZIP_LZMA)
    whole = bytearray(Path("t.npz").read_bytes())
    at = whole.index(b"words.npy") + 40
    damaged = whole[:at] + b"\xff" * 8 + whole[at + 8 :]
    Path("t.npz").write_bytes(damaged)
    assert "column 'words' is truncated or damaged: save the file again" in refusal(capsys, "table", "t.npz", *FLAGS)
    write_npz()
    whole = Path("t.npz").read_bytes()
    for offset, value, expected in (
        ((8, 10), 99, "is in a form that cannot be read"),
        ((6, 8), 1, "is encrypted: save it without a password"),
    ):
        changed = bytearray(whole)
        for magic, place in ((b"PK\x03\x04", offset[0]), (b"PK\x01\x02", offset[1])):
            at = changed.find(magic)
            while at >= 0:
                changed[at + place] = value
                at = changed.find(magic, at + 1)
        Path("t.npz").write_bytes(changed)
        assert expected in refusal(capsys, "table", "t.npz", *FLAGS)


def aliases(field):
    lines = [f"a0: &a0 [{','.join(['x'] * 10)}]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join([*lines, f"{field}: *a9"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (aliases("emotions"), "it has an alias"),
        (aliases("text"), "it has an alias"),
        ("emotions: [[a]]", "emotions is [['a']]: expected a list of names"),
        ("text: 2020-99-99", "is not a YAML file"),
        ("text: " + "9" * 5000, "is not a YAML file"),
        ("[" * 5000, "is too large or too nested for a mapping"),
        ("- " * 2000, "is nested too deeply"),
    ],
)
def test_yaml(text, expected, capsys):
    np.savez("t.npz", **COLUMNS)
    Path("columns.yaml").write_text(text)
    assert expected in refusal(
        capsys, "table", "t.npz", "--columns=columns.yaml", "--conversation=talk", "--speaker=who"
    )


def test_csv_headers(capsys):
    names = ",".join(f"x{n}y" for n in range(40_000))
    Path("t.csv").write_text(f"{names}\n{','.join('1' * 40_000)}\n")
    assert "no column 'talk'" in refusal(capsys, "table", "t.csv", *FLAGS, megabytes=400)
    Path("t.csv").write_text("talk,who,emotion,split,f_" + "1" * 5000 + "\na,M,A,train,1\n")
    assert "no column 'words'" in refusal(capsys, "table", "t.csv", *FLAGS)


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        (
            "talk",
            pa.array([2**31 - 1] * 3, pa.int32()).cast(pa.date32()),
            "column 'talk' has values that are no date32",
        ),
        ("talk", pa.array([2**62] * 3, pa.timestamp("us")), "column 'talk' has values that are no timestamp"),
        (
            "talk",
            pa.array([1] * 3, pa.timestamp("s", "Nowhere/Else")),
            "column 'talk' has values that are no timestamp",
        ),
        (
            "who",
            pa.Array.from_buffers(pa.string(), 3, pa.array([b"\xff"] * 3).buffers()),
            "column 'who' has values that",
        ),
        ("words", pa.array([[], [], []], pa.list_(pa.float32())), "text has width 0"),
    ],
)
def test_parquet(name, column, expected, capsys):
    columns = {key: pa.array(list(value)) for key, value in COLUMNS.items()}
    pyarrow.parquet.write_table(pa.table({**columns, name: column}), "t.parquet")
    assert expected in refusal(capsys, "table", "t.parquet", *FLAGS)


def test_frames(capsys, tmp_path):
    flags = [flag for flag in FLAGS if not flag.startswith("--text")]
    frames = tmp_path / "frames"
    frames.mkdir()

    def refused(utterance):
        Path("t.csv").write_text(f"talk,who,emotion,split,utt\na,M,A,train,{utterance}\nb,M,A,test,v\n")
        return refusal(capsys, "frames", "t.csv", *flags, "--utterance=utt", "--text=frames")

    np.save("secret.npy", np.ones((2, 2), np.float32))
    np.save(frames / "v.npy", np.ones((2, 2), np.float32))
    assert "has the name '../secret', whose file would be outside the folder" in refused("../secret")
    assert "whose file would be outside the folder" in refused(tmp_path / "secret")
    for content, expected in (
        (b"PK\x03\x04 broken", "u.npy is truncated, damaged or not a .npy file"),
        (shaped("(4294967296, 0)"), "u.npy is float32 of shape (4294967296, 0): expected floats"),
        (shaped("(1000000000000000, 2)"), "u.npy "),
        (shaped("(" + "9" * 100 + ", 2)"), "u.npy is truncated, damaged or not a .npy file"),
    ):
        (frames / "u.npy").write_bytes(content)
        assert expected in refused("u")


def test_damaged_tables_get_one_line_or_are_read(capsys, tmp_path):
    write_npz(zipfile.ZIP_DEFLATED)
    columns = {key: pa.array(list(value)) for key, value in COLUMNS.items()}
    pyarrow.parquet.write_table(pa.table(columns), "t.parquet")
    chosen = random.Random(0)
    for name in ("t.npz", "t.parquet"):
        whole = (tmp_path / name).read_bytes()
        for number in range(60):
            damaged = bytearray(whole)
            for _ in range(chosen.randint(1, 3)):
                damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
            (tmp_path / name).write_bytes(damaged)
            status = exit_status(convert, ["table", name, *FLAGS, f"corpus{name}{number}"])
            line = capsys.readouterr().err
            assert status == 0 or line.startswith("error: "), line
