"""The smallest sources of every format that can be converted, as Python values that tests change before they write."""

import csv
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml


class Source(NamedTuple):
    """A source of a format.

    Attributes:
      content: dictionaries, lists and tuples of arrays, numbers and strings.
      write: writes such a content into the current folder; raises if the format has no place for it.
      arguments: of its conversion, without the corpus' folder.
    """

    content: Any
    write: Callable[[Any], None]
    arguments: tuple[str, ...]


ROWS = {
    "talk": ["a", "a", "b", "b"],
    "who": ["M", "F", "M", "F"],
    "emotion": ["calm", "angry", "angry", ""],
    "split": ["train", "train", "dev", "dev"],
    "said": ["Hi", "Oh", "Yes", "no"],
    "utt": ["a_0", "a_1", "b_0", "b_1"],
    "start": [0.5, 1.5, 0.25, 3.0],
}
VECTORS = [[0.5, 1.0], [1.5, -1.0], [2.5, 1e-3], [3.5, 2.0]]
MAPPING = {
    "conversation": "talk",
    "speaker": "who",
    "label": "emotion",
    "split": "split",
    "sentence": "said",
    "utterance": "utt",
    "order": "start",
}
COLUMNS = tuple(f"--{field}={column}" for field, column in MAPPING.items())
EMOTIONS = "--emotions=calm,angry"


def _cells(content: dict) -> list[list]:
    """Returns the lines of a table of columns that need not be of one length, nor be columns."""
    columns = [[name, *(values if isinstance(values, list) else [values])] for name, values in content.items()]
    return [[column[row] for column in columns if row < len(column)] for row in range(max(map(len, columns)))]


def _csv(path: str, delimiter: str = ",") -> Callable[[Any], None]:
    def write(content: Any) -> None:
        file = io.StringIO()
        csv.writer(file, delimiter=delimiter).writerows(_cells(content))
        Path(path).write_text(file.getvalue(), encoding="utf-8", errors="surrogatepass", newline="")

    return write


def _npz(path: str) -> Callable[[Any], None]:
    return lambda content: np.savez(path, **{name: np.array(values) for name, values in content.items()})


def _parquet(content: Any) -> None:
    pa.parquet.write_table(pa.table(content), "t.parquet", compression="none")


def _arrow(content: Any) -> None:
    table = pa.table(content)
    with pa.ipc.new_file("t.arrow", table.schema) as writer:
        writer.write_table(table)


def _dataset(content: Any) -> None:
    datasets.disable_progress_bars()
    datasets.Dataset(pa.table(content), fingerprint="f" * 16).save_to_disk("saved")


def _yaml(content: Any) -> None:
    _csv("t.csv")(content["rows"])
    Path("columns.yaml").write_text(yaml.safe_dump(content["mapping"]), encoding="utf-8")


def _frames(content: Any) -> None:
    _csv("t.csv")(content["rows"])
    Path("frames").mkdir()
    for name, frames in content["frames"].items():
        np.save(Path("frames") / f"{name}.npy", frames)


def _emotion2vec(content: Any) -> None:
    np.save("train.npy", content["frames"])
    for suffix in ("lengths", "emo"):
        Path(f"train.{suffix}").write_text("".join(f"{line}\n" for line in content[suffix]), encoding="utf-8")


def _dag_json(content: Any) -> None:
    for split, conversations in content.items():
        Path(f"{split}_data_x.json.feature").write_text(json.dumps(conversations))


def _meld(content: Any) -> None:
    _npz("features.npz")(content["features"])
    for split in ("train", "dev"):
        _csv(f"{split}_sent_emo.csv")(content[split])


def _pickle(protocol: int) -> Callable[[Any], None]:
    return lambda content: Path("t.pkl").write_bytes(pickle.dumps(content, protocol))


def _torch(content: Any) -> None:
    """Writes what `torch.save` does, without PyTorch: arrays of floats become tensors."""
    storages: list[bytes] = []

    def program(value: Any) -> bytes:
        if isinstance(value, np.ndarray) and value.dtype == np.float32:
            storages.append(value.tobytes())
            strides = tuple(n // value.itemsize for n in value.strides)
            storage = b"(S'storage'\nctorch\nFloatStorage\nS'%d'\nS'cpu'\nI%d\ntQ" % (len(storages) - 1, value.size)
            return b"ctorch._utils\n_rebuild_tensor_v2\n(%bI0\n%b%bI00\n(dtR" % (
                storage,
                program(value.shape),
                program(strides),
            )
        if isinstance(value, dict):
            return b"(d" + b"".join(program(key) + program(item) + b"s" for key, item in value.items())
        if isinstance(value, list):
            return b"(l" + b"".join(program(item) + b"a" for item in value)
        if isinstance(value, tuple):
            return b"(" + b"".join(map(program, value)) + b"t"
        return pickle.dumps(value, 0)[:-1]

    data = program(content) + b"."
    with zipfile.ZipFile("t.pt", "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for number, storage in enumerate(storages):
            archive.writestr(f"archive/data/{number}", storage)


def _by_conversation(values: Iterable) -> dict[str, list]:
    """Returns the values of three conversations, of two utterances, one and one."""
    first, second, third, fourth = values
    return {"Ses01F_impro01": [first, second], "Ses02F_impro02": [third], "Ses05M_impro04": [fourth]}


def _elements() -> dict[str, Any]:
    vectors = [np.array(vector, np.float32) for vector in VECTORS]
    return {
        "ids": _by_conversation(["Ses01F_impro01_F000", "Ses01F_impro01_M000", "u2", "u3"]),
        "speakers": _by_conversation(["F", "M", "M", "F"]),
        "labels": _by_conversation([5, -1, 0, 2]),
        **{name: _by_conversation(vectors) for name in ("text", "audio", "visual", "text2", "text3", "text4")},
        "sentences": _by_conversation(["You\x92re late.", "Am I?", "", "né"]),
        "train": ["Ses01F_impro01", "Ses02F_impro02"],
        "test": ["Ses05M_impro04"],
        "validation": [],
    }


def _elements_named(*names: str) -> tuple:
    elements = _elements()
    return tuple(elements[name] for name in names)


def _part(split: str) -> dict[str, Any]:
    return {
        "id": [f"{split}A$_$0", f"{split}A$_$1", f"{split}B$_$0"],
        "raw_text": ["Hi", "Oh", "né"],
        "text": np.arange(6, dtype=np.float32).reshape(3, 2),
        "audio": np.arange(18, dtype=np.float32).reshape(3, 3, 2),
        "audio_lengths": [3, 1, 2],
        "classification_labels": [0, 1, 2],
        "annotations": ["Negative", "Neutral", "Positive"],
        "regression_labels": [-1.5, 0.0, 2.0],
    }


def _listed(video: str) -> list[dict[str, Any]]:
    vectors = [np.array(vector, np.float32) for vector in VECTORS[:2]]
    return [
        {
            "vid": video,
            "speakers": ["M", "F"],
            "labels": [0, 1],
            **{modality: vectors for modality in ("text", "audio", "visual")},
            "sentence": ["Hi", "Oh"],
        }
    ]


def _spoken(label: str) -> list[list[dict[str, Any]]]:
    return [
        [{"text": "Hi", "speaker": "M", "label": label, "cls": [0.5, 1.0]}, {"text": "", "speaker": "F", "cls": [1, 2]}]
    ]


_NUMBERED = {**ROWS, "words_0": [v[0] for v in VECTORS], "words_1": [v[1] for v in VECTORS]}
_TABLE = (*COLUMNS, EMOTIONS, "--text=words")
_MELD = {
    "Utterance": ["Well.", "So?"],
    "Speaker": ["Ross", "Zoë"],
    "Emotion": ["anger", "neutral"],
    "Sentiment": ["negative", "neutral"],
    "Dialogue_ID": ["0", "0"],
    "Utterance_ID": ["0", "1"],
}
_MELD_FEATURES = {"split": ["train", "dev"], "dialogue": [0, 0], "utt": [0, 1], "words": VECTORS[:2]}
_MMGCN = ("ids", "speakers", "labels", "text", "audio", "visual", "sentences", "train", "test")
_COSMIC = ("speakers", "labels", "text", "text2", "text3", "text4", "sentences", "train", "test", "validation")

SOURCES = {
    "csv": Source(_NUMBERED, _csv("t.csv"), ("table", "t.csv", *_TABLE)),
    "tsv": Source(_NUMBERED, _csv("t.tsv", "\t"), ("table", "t.tsv", *_TABLE)),
    "npz": Source({**ROWS, "words": VECTORS}, _npz("t.npz"), ("table", "t.npz", *_TABLE)),
    "parquet": Source({**ROWS, "words": VECTORS}, _parquet, ("table", "t.parquet", *_TABLE)),
    "arrow": Source({**ROWS, "words": VECTORS}, _arrow, ("table", "t.arrow", *_TABLE)),
    "dataset": Source({**ROWS, "words": VECTORS}, _dataset, ("table", "saved", *_TABLE)),
    "yaml": Source(
        {"rows": _NUMBERED, "mapping": {**MAPPING, "text": "words", "emotions": ["calm", "angry"]}},
        _yaml,
        ("table", "t.csv", "--columns=columns.yaml"),
    ),
    "frames": Source(
        {"rows": ROWS, "frames": {name: np.ones((2, 3), np.float32) for name in ROWS["utt"]}},
        _frames,
        ("frames", "t.csv", *COLUMNS, EMOTIONS, "--audio=frames"),
    ),
    "emotion2vec": Source(
        {
            "frames": np.arange(12, dtype=np.float32).reshape(6, 2),
            "lengths": [3, 1, 2],
            "emo": ["Ses01F_impro01_F000\tneu", "Ses01F_impro01_M000\tang", "Ses01F_impro02_F000\tsad"],
        },
        _emotion2vec,
        ("emotion2vec", "train.npy"),
    ),
    "dag-json": Source(
        {split: _spoken(label) for split, label in (("train", "joy"), ("dev", "joy"), ("test", "anger"))},
        _dag_json,
        ("dag-json", "train_data_x.json.feature", "dev_data_x.json.feature", "test_data_x.json.feature"),
    ),
    "meld-csv": Source(
        {"train": _MELD, "dev": _MELD, "features": _MELD_FEATURES},
        _meld,
        ("meld-csv", "train_sent_emo.csv", "dev_sent_emo.csv", "--features=features.npz", "--text=words"),
    ),
    "mmgcn": Source(_elements_named(*_MMGCN), _pickle(2), ("pickle", "t.pkl")),
    "mmgcn-4": Source(_elements_named(*_MMGCN), _pickle(4), ("pickle", "t.pkl")),
    "cosmic": Source(
        _elements_named(*_COSMIC), _pickle(0), ("pickle", "t.pkl", "--emotions=A,B,C,D,E,F", "--roberta=mean")
    ),
    "mmsa": Source({split: _part(split) for split in ("train", "test")}, _pickle(5), ("pickle", "t.pkl")),
    "mmsa-pooled": Source(
        {split: _part(split) for split in ("train", "test")},
        _pickle(3),
        ("pickle", "t.pkl", "--pool", "--regression=ternary"),
    ),
    "corect": Source(
        {split: _listed(f"{split}_0") for split in ("train", "valid")},
        _pickle(4),
        ("pickle", "t.pkl", "--emotions=A,B"),
    ),
    "torch": Source(_elements_named(*_MMGCN), _torch, ("pickle", "t.pt")),
}
