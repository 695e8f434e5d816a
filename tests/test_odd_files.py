"""Odd, damaged and hostile tables get one line with what is wrong, in little time and memory."""

import io
import json
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmer.command import exit_status
from jmer.data.convert import convert
from jmer.data.readers.arrow_tables import open_parquet

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


def objects(pickled):
    return header("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", pickled)


LONG = b"\x8b" + struct.pack("<i", 5000) + b"\x01" * 5000


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
        ({"words": header("(" * 30_000)}, "save the file again (Header info length (30001) is large and may not"),
        ({"talk": objects(b"\x80\x02](}}}e.")}, "column 'talk' has a dict in row 1: expected one value per row"),
        ({"talk": objects(b"\x80\x02](" + LONG * 3 + b"e.")}, "column 'talk' is refused: it has an integer of 39993"),
        ({"talk": objects(b"cos\nsystem\n(S'true'\ntR.")}, "column 'talk' is refused and none of its code was run"),
        ({"talk": objects(b"\x80\x02]q")}, "column 'talk' is truncated or damaged: save the file again"),
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


def test_npz_of_many_or_no_members(capsys):
    with zipfile.ZipFile("t.npz", "w") as archive:
        for number in range(10_000):
            archive.writestr(f"c{number}.npy", b"")
    assert refusal(capsys, "table", "t.npz", *FLAGS).endswith("for the conversation: it has c0..c9999\n")
    zipfile.ZipFile("t.npz", "w").close()
    assert "has no column 'talk' for the conversation: it has no columns" in refusal(capsys, "table", "t.npz", *FLAGS)


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
        ("text: " + "1:" * 3000 + "1", "it has an integer of more than 20 digits"),
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
    Path("t.csv").write_text(",".join(["x"] * 300_000) + "\n")
    assert "is refused: its columns would take far more memory" in refusal(capsys, "table", "t.csv", *FLAGS)


def test_csv_with_a_long_row_or_a_damaged_archive(capsys):
    Path("t.csv").write_text("talk,who,emotion,split,words\na,M,A,train," + "9" * 3_000_000 + "\n")
    line = refusal(capsys, "table", "t.csv", *FLAGS)
    assert "has a row of more than 1 MB: close its quotes, or shorten its cells" in line
    Path("t.csv").write_bytes(b"\x1f\x8b\x08" + b"\xff" * 60)
    assert "t.csv is compressed with gzip: decompress it" in refusal(capsys, "table", "t.csv", *FLAGS)


def test_a_line_is_no_longer_than_a_terminal_can_show(capsys):
    np.savez("t.npz", **COLUMNS, **{f"x{'y' * 200}{n}z": np.ones(3) for n in range(60)})
    line = refusal(capsys, "table", "t.npz", *[flag.replace("=talk", "=voice") for flag in FLAGS])
    assert "…" in line and line.endswith("and 15 more\n") and len(line) < 2_200


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


def test_parquet_that_claims_or_repeats_rows(capsys):
    columns = {key: pa.array(list(value)) for key, value in COLUMNS.items()}
    one = pa.table({key: pa.array([value[0].as_py()] * 500_000, value.type) for key, value in columns.items()})
    pa.parquet.write_table(pa.concat_tables([one] * 2), "t.parquet", compression="zstd")
    assert Path("t.parquet").stat().st_size < 1 << 20
    assert "is refused: its rows would take far more memory" in refusal(capsys, "table", "t.parquet", *FLAGS)
    long = pa.table({"who": ["x" * 1_000_000] * 300})
    pa.parquet.write_table(long, "t.parquet", compression="zstd")
    assert len(set(map(id, open_parquet(Path("t.parquet")).values("who")))) == 1


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{x",
        b"\xff\xfe",
        b'{"info": null}',
        b'{"info": {"features": [1]}}',
        b'{"info": {"features": {"emotion": {"_type": "ClassLabel", "names": 5}}}}',
        b'{"info": {"features": {"emotion": {"_type": "ClassLabel", "names": [["A"], "B"]}}}}',
    ],
    ids=["list", "no json", "no text", "null", "features", "number", "nested"],
)
def test_schemas_of_hugging_face(text, capsys):
    columns = {key: pa.array(list(value)) for key, value in COLUMNS.items()}
    pyarrow.parquet.write_table(pa.table(columns).replace_schema_metadata({b"huggingface": text}), "t.parquet")
    assert "t.parquet: its Hugging Face schema is damaged: save it again" in refusal(
        capsys, "table", "t.parquet", *FLAGS
    )


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("dataset_dict.json", "[]", "dataset_dict.json is damaged: save it again (it contains a list)"),
        ("dataset_dict.json", "[" * 100_000, "dataset_dict.json is nested too deeply"),
        ("dataset_dict.json", {"splits": []}, "dataset_dict.json does not name the splits"),
        ("dataset_dict.json", {"splits": ["../data/train"]}, "dataset_dict.json does not name the splits"),
        ("dataset_dict.json", {"splits": [["train"]]}, "dataset_dict.json does not name the splits"),
        ("dataset_dict.json", {"splits": ["train", "test"]}, "data/test/state.json is missing"),
        ("train/state.json", {"_data_files": "x"}, "train/state.json does not list the Arrow files"),
        ("train/state.json", {"_data_files": []}, "train/state.json does not list the Arrow files"),
        ("train/state.json", {"_data_files": [3]}, "train/state.json lists what is no file beside it"),
        ("train/state.json", {"_data_files": [{"filename": "../x"}]}, "train/state.json lists what is no file beside"),
        ("train/state.json", {"_data_files": [{"filename": "\ud800"}]}, "train/state.json lists what is no file"),
        ("train/state.json", {"_data_files": [{"filename": "no.arrow"}]}, "train/no.arrow is missing"),
        ("train/state.json", {"_format_type": "nonsense"}, "the dataset in data/train is damaged"),
        ("train/dataset_info.json", "[]", "train/dataset_info.json is damaged"),
        ("train/dataset_info.json", {"features": [1]}, "train/dataset_info.json describes features that cannot be"),
        ("train/dataset_info.json", {"features": {"talk": {"_type": "Nope"}}}, "(Feature type 'Nope' not found)"),
        ("train/data-00000-of-00001.arrow", "0" * 500, "the dataset in data/train is damaged"),
    ],
    ids=[
        "list",
        "deep",
        "no splits",
        "split elsewhere",
        "nested split",
        "missing split",
        "string of files",
        "no files",
        "number of files",
        "file elsewhere",
        "half a character",
        "missing file",
        "format",
        "list of info",
        "features",
        "feature",
        "rows",
    ],
)
def test_metadata_of_saved_datasets(file, change, expected, capsys):
    rows = datasets.Dataset.from_dict({name: list(values) for name, values in COLUMNS.items()})
    datasets.DatasetDict({"train": rows}).save_to_disk("data")
    capsys.readouterr()  # its progress
    path = Path("data") / file
    path.write_text(change if isinstance(change, str) else json.dumps({**json.loads(path.read_text()), **change}))
    assert expected in refusal(capsys, "table", "data", *FLAGS)


@pytest.mark.parametrize("lengths", ["9" * 5000, "\u00b2", "-1"], ids=["digits", "superscript", "negative"])
def test_lengths_of_emotion2vec(lengths, capsys):
    np.save("train.npy", np.ones((2, 3), np.float32))
    Path("train.emo").write_text("Ses01F_impro01_F000 ang\nSes01F_impro01_M000 hap\n")
    Path("train.lengths").write_text(lengths + "\n1\n")
    assert "train.lengths, line 1 is" in refusal(capsys, "emotion2vec", ".")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"speaker": None}, "speaker of utterance 0 is None: expected a string"),
        ({"speaker": [["x"]]}, "speaker of utterance 0 is [['x']]: expected a string"),
        ({"text": 3}, "text of utterance 0 is 3: expected a string"),
    ],
    ids=str,
)
def test_values_of_json(change, expected, capsys):
    utterance = {"text": "x", "speaker": "M", "label": "a", "cls": [1.0, 2.0]}
    Path("train_data_x.json.feature").write_text(json.dumps([[{**utterance, **change}]]))
    assert expected in refusal(capsys, "dag-json", "train_data_x.json.feature")


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
