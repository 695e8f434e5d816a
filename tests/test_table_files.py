"""Tables are opened by what they contain, from files and folders, and a file of another kind is named."""

import argparse
import gzip
import pickle
import tarfile
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmer.data.readers import table
from jmer.data.readers.table_files import open_table, split_in
from jmer.errors import UserError

FLAGS = ["--conversation=talk", "--speaker=who", "--label=emotion", "--text=words"]
EMOTIONS = "--emotions=calm,angry"


def read(sources, *flags):
    parser = argparse.ArgumentParser()
    table.add_arguments(parser)
    return table.read(sources, parser.parse_args(flags))


def refusal(sources, *flags):
    with pytest.raises(UserError) as caught:
        read(sources, *flags)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def rows(prefix="a", count=2, emotions=("calm", "angry")):
    return {
        "talk": [f"{prefix}{i // 2}" for i in range(2 * count)],
        "who": ["A", "B"] * count,
        "emotion": list(emotions) * count,
        "words": [[i + 0.5, 1.0] for i in range(2 * count)],
    }


def contents(corpus):
    return {
        split: [
            (c.id, list(c.speakers), c.labels.tolist(), c.features["text"].tolist())
            for c in corpus.conversations(split)
        ]
        for split in corpus.splits
    }


EXPECTED = {
    "train": [("a0", ["A", "B"], [0, 1], [[0.5, 1], [1.5, 1]]), ("a1", ["A", "B"], [0, 1], [[2.5, 1], [3.5, 1]])],
    "validation": [("b0", ["A", "B"], [0, 1], [[0.5, 1], [1.5, 1]])],
}


def parquet(path, columns, schema=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.table(columns, schema), path)
    return path


def csv_text(delimiter=",", point="."):
    lines = [["talk", "who", "emotion", "part", "words_0", "words_1"]]
    for split, made in (("train", rows()), ("dev", rows("b", 1))):
        for talk, who, emotion, words in zip(*made.values(), strict=True):
            lines.append([talk, who, emotion, split, *(str(word).replace(".", point) for word in words)])
    return "\n".join(delimiter.join(line) for line in lines) + "\n"


@pytest.mark.parametrize(
    ("delimiter", "point", "encoding"),
    [
        *[(",", ".", encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")],
        *[(";", ",", "utf-8"), (";", ".", "cp1252"), ("\t", ".", "utf-8"), ("\t", ",", "utf-16")],
    ],
)
def test_csv_of_spreadsheets(delimiter, point, encoding, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(csv_text(delimiter, point).replace("A", "Zoë").encode(encoding))
    expected = {
        split: [(name, ["Zoë", "B"], labels, words) for name, _, labels, words in found]
        for split, found in EXPECTED.items()
    }
    assert contents(read([path], *FLAGS, EMOTIONS, "--split=part")) == expected


def test_sentences_that_were_decoded_as_latin1_are_restored(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(csv_text().replace("B", "It\x92s"), encoding="utf-8")
    train = read([path], *FLAGS, EMOTIONS, "--split=part", "--sentence=who").conversations("train")
    assert list(train[0].sentences) == ["A", "It’s"]


def test_the_content_decides_what_a_file_is(tmp_path):
    source = parquet(tmp_path / "train.csv", rows())
    assert contents(read([source], *FLAGS, EMOTIONS)) == {"train": EXPECTED["train"]}
    with (tmp_path / "train.parquet").open("wb") as file:
        np.savez(file, **{name: np.array(values) for name, values in rows().items()})
    assert contents(read([tmp_path / "train.parquet"], *FLAGS, EMOTIONS)) == {"train": EXPECTED["train"]}
    (tmp_path / "train.tsv").write_text(csv_text("\t"))
    assert contents(read([tmp_path / "train.tsv"], *FLAGS, EMOTIONS, "--split=part")) == EXPECTED


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train.csv", csv_text())


def tar(path):
    path.with_suffix(".x").write_text(csv_text())
    with tarfile.open(path, "w") as file:
        file.add(path.with_suffix(".x"))


def sheet(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/workbook.xml", "<workbook/>")


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x\n"), "is a Git LFS pointer"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html></html>"), "is a web page, not the file itself"),
        (lambda path: path.write_bytes(gzip.compress(csv_text().encode())), "is compressed with gzip: decompress it"),
        (lambda path: path.write_bytes(pickle.dumps(rows())), "is a pickle: convert it with the format `pickle`"),
        (lambda path: path.write_text('[{"talk": 1}]'), "is a JSON file"),
        (lambda path: path.write_bytes(b""), "is empty: get the file again"),
        (archive, "is a zip archive (1 files, the first 'train.csv'): unpack it and give the files"),
        (tar, "is a tar archive: unpack it"),
        (sheet, "is an Excel or Office file: save the sheet as csv"),
    ],
)
def test_a_file_of_another_kind_is_named(make, message, suffix, tmp_path):
    path = tmp_path / f"train{suffix}"
    make(path)
    assert f"train{suffix} {message}" in refusal([path], *FLAGS, EMOTIONS)


def test_text_and_vectors_that_pandas_keeps_as_objects_are_read(tmp_path):
    columns = {name: np.empty(4, object) for name in rows()}
    for name, values in rows().items():
        columns[name][:] = [np.array(v) if isinstance(v, list) else v for v in values]
    columns["emotion"][3] = None
    columns["words"][1] = None
    np.savez(tmp_path / "train.npz", **columns)
    first, second = read([tmp_path / "train.npz"], *FLAGS, EMOTIONS).conversations("train")
    assert (first.labels.tolist(), second.labels.tolist()) == ([0, 1], [0, -1])
    assert (first.features["text"].tolist(), first.available["text"].tolist()) == ([[0.5, 1], [0, 0]], [True, False])
    columns["words"][0] = np.ones(3)
    np.savez(tmp_path / "train.npz", **columns)
    message = "column 'words' contains objects that are not numbers of one width"
    assert message in refusal([tmp_path / "train.npz"], *FLAGS, EMOTIONS)


class Malicious:
    def __reduce__(self):
        return (print, ("run",))


def test_objects_in_a_table_run_no_code(tmp_path, capsys):
    columns = {name: np.array(values) for name, values in rows().items()}
    columns["who"] = np.array(["A", "B", "A", Malicious()], object)
    np.savez(tmp_path / "train.npz", **columns)
    assert "is refused and none of its code was run" in refusal([tmp_path / "train.npz"], *FLAGS, EMOTIONS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[("train", "train"), ("meld_dev_final", "validation"), ("emorynlp-TEST", "test"), ("val", "validation")],
        *[("train-00000-of-00002", "train"), ("contrast", None), ("train_test", None), ("valid_dev", "validation")],
        *[("dataset", None), ("", None)],
    ],
)
def test_the_name_of_a_file_says_its_split(name, split):
    assert split_in(name) == split


def test_splits_come_from_the_names_of_files_unless_a_column_has_them(tmp_path):
    sources = [parquet(tmp_path / "x_train.parquet", rows()), parquet(tmp_path / "x_dev.parquet", rows("b", 1))]
    assert contents(read(sources, *FLAGS, EMOTIONS)) == EXPECTED
    every = [{**rows(), "part": ["dev"] * 4}, {**rows("b", 1), "part": ["train"] * 2}]
    swapped = [parquet(path, columns) for path, columns in zip(sources, every, strict=True)]
    assert [c.id for c in read(swapped, *FLAGS, EMOTIONS, "--split=part").conversations("train")] == ["b0"]
    unnamed = parquet(tmp_path / "x.parquet", rows("c"))
    message = refusal([*sources, unnamed], *FLAGS, EMOTIONS)
    assert "no column for the split: give --split COLUMN, or --predict-only" in message
    assert f"as in train.csv, dev.csv and test.csv, which {unnamed} is not" in message
    message = refusal([sources[1]], *FLAGS, EMOTIONS)
    assert "x_dev.parquet: no file is train, only validation: add training rows, or give --predict-only" in message


def test_a_folder_of_files(tmp_path):
    parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", rows())
    parquet(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", rows("b", 1))
    (tmp_path / "hub" / "README.md").write_text("read me")
    (tmp_path / "hub" / "data" / "._train-00000-of-00002.parquet").write_bytes(b"\0\5\x16\7")  # as macOS writes them
    assert contents(read([tmp_path / "hub"], *FLAGS, EMOTIONS)) == EXPECTED
    parquet(tmp_path / "branch" / "default" / "train" / "0000.parquet", rows())
    parquet(tmp_path / "branch" / "default" / "validation" / "0000.parquet", rows("b", 1))
    assert contents(read([tmp_path / "branch"], *FLAGS, EMOTIONS)) == EXPECTED
    (tmp_path / "empty").mkdir()
    assert "empty has no .parquet, .csv, .npz, .arrow files and is no dataset" in refusal(
        [tmp_path / "empty"], *FLAGS, EMOTIONS
    )
    (tmp_path / "empty" / "card.json").write_text("{}")
    assert "empty is a corpus of jmer already: give it to --corpus" in refusal([tmp_path / "empty"], *FLAGS, EMOTIONS)


def save(dataset, path):
    datasets.disable_progress_bars()
    dataset.save_to_disk(str(path))
    return path


def test_datasets_of_hugging_face(tmp_path):
    train, dev = datasets.Dataset.from_dict(rows()), datasets.Dataset.from_dict(rows("b", 1))
    both = save(datasets.DatasetDict({"train": train, "dev": dev}), tmp_path / "both")
    assert contents(read([both], *FLAGS, EMOTIONS)) == EXPECTED
    one = save(train.add_column("part", ["train"] * 4), tmp_path / "one")
    assert contents(read([one], *FLAGS, EMOTIONS, "--split=part")) == {"train": EXPECTED["train"]}
    picked = save(datasets.DatasetDict({"train": train.select([2, 3]), "dev": dev}), tmp_path / "picked")
    assert contents(read([picked], *FLAGS, EMOTIONS))["train"] == EXPECTED["train"][1:]
    for file in (both / "train").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    assert "both/train is damaged: save it again" in refusal([both], *FLAGS, EMOTIONS)
    (both / "train" / "state.json").unlink()
    assert "both/train/state.json is missing: save it again" in refusal([both], *FLAGS, EMOTIONS)


@pytest.mark.parametrize("kind", [pa.ipc.new_stream, pa.ipc.new_file])
def test_files_of_arrow(kind, tmp_path):
    with kind(str(tmp_path / "x-train.arrow"), pa.table(rows()).schema) as writer:
        writer.write_table(pa.table(rows()))
    assert contents(read([tmp_path / "x-train.arrow"], *FLAGS, EMOTIONS)) == {"train": EXPECTED["train"]}


def classes(*names):
    return datasets.ClassLabel(names=list(names))


def test_class_labels_name_the_emotions(tmp_path):
    train = datasets.Dataset.from_dict(rows(emotions=(0, 1))).cast_column("emotion", classes("calm", "angry", "none"))
    dev = datasets.Dataset.from_dict(rows("b", 1, emotions=(0, -1))).cast_column("emotion", train.features["emotion"])
    saved = save(datasets.DatasetDict({"train": train, "dev": dev}), tmp_path / "saved")
    (tmp_path / "files").mkdir()
    train.to_parquet(str(tmp_path / "files" / "train.parquet"))
    dev.to_parquet(str(tmp_path / "files" / "dev.parquet"))
    for source in (saved, tmp_path / "files"):
        corpus = read([source], *FLAGS)
        assert corpus.card.emotions == ("calm", "angry", "none")
        assert [c.labels.tolist() for c in corpus.conversations("train")] == [[0, 1], [0, 1]]
        assert [c.labels.tolist() for c in corpus.conversations("validation")] == [[0, -1]]
        # The names of the file count, not its numbers, if the emotions are given in another order.
        turned = read([source], *FLAGS, "--emotions=angry,calm")
        assert [c.labels.tolist() for c in turned.conversations("train")] == [[1, 0], [1, 0]]
    other = dev.cast_column("emotion", classes("angry", "calm", "none"))
    differing = save(datasets.DatasetDict({"train": train, "dev": other}), tmp_path / "differing")
    assert "the classes of column 'emotion' differ between the sources" in refusal([differing], *FLAGS)


NESTED = {
    "talk": ["a0", "a1"],
    "who": [["A", "B"], ["A", "B"]],
    "emotion": [[0, 1], [0, 1]],
    "said": [["Hi", "Oh"], ["Yes", "No"]],
    "words": [[[0.5, 1.0], [1.5, 1.0]], [[2.5, 1.0], [3.5, 1.0]]],
    "topics": [["x"], ["y", "z", "x"]],
}


def test_rows_that_are_conversations(tmp_path):
    features = datasets.Dataset.from_dict(NESTED).features
    features["emotion"] = datasets.List(classes("calm", "angry"))
    train = datasets.Dataset.from_dict(NESTED, features=features)
    saved = save(datasets.DatasetDict({"train": train}), tmp_path / "saved")
    files = [parquet(tmp_path / "train.parquet", NESTED), saved]
    train.to_parquet(str(tmp_path / "x_train.parquet"))
    for source, emotions in zip([*files, tmp_path / "x_train.parquet"], ([EMOTIONS], [], []), strict=True):
        corpus = read([source], *FLAGS, "--sentence=said", *emotions)
        assert contents(corpus) == {"train": EXPECTED["train"]}
        assert corpus.card.emotions == ("calm", "angry")
        assert [list(c.sentences) for c in corpus.conversations("train")] == [["Hi", "Oh"], ["Yes", "No"]]
    one_speaker = parquet(tmp_path / "one_train.parquet", {**NESTED, "who": ["A", "B"]})
    assert [c.speakers for c in read([one_speaker], *FLAGS, EMOTIONS).conversations("train")] == [["A"] * 2, ["B"] * 2]
    uneven = {**NESTED, "who": [["A", "B"], ["A"]]}
    assert "column 'who' has 1 values in row 2 but 'emotion' has 2: expected one value per utterance" in refusal(
        [parquet(tmp_path / "uneven_train.parquet", uneven)], *FLAGS, EMOTIONS
    )


def test_a_list_of_features_is_not_taken_for_labels(tmp_path):
    source = parquet(tmp_path / "train.parquet", rows())
    assert "column 'words' is list<element: double>: expected one value per row" in refusal(
        [source], *FLAGS, EMOTIONS, "--label=words"
    )
    assert open_table(source, ()).by_utterance("emotion") is None
