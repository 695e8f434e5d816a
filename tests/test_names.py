"""Names of every kind go through every format into every output and back; those that cannot are one line."""

import argparse
import csv
import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from fuzzing import folder
from names import KEPT, KEPT_KINDS, REFUSED_KINDS
from small_sources import SOURCES
from tiny import linear_config, tiny_corpus

import jmer
from experiments import tables
from jmer.command import exit_status, show
from jmer.data import make_conversation, make_corpus, save_corpus
from jmer.data.convert import FORMATS, convert
from jmer.data.corpus import Card, load_saved
from jmer.data.readers.conventions import fix_encoding
from jmer.errors import UserError
from jmer.evaluation.markdown import markdown_table
from jmer.evaluation.plots import plot_confusion
from jmer.evaluation.predictions import prediction_table, read_predictions, write_predictions
from jmer.text import storable

NAMES = tuple(name for name in KEPT if name)
REFUSED = {"a\rb": "U+000D", "\x1b[2J": "U+001B", "\x00": "U+0000", "\x85": "U+0085", "x" * 2000: "2000 characters"}
FIELDS = {"conversation": "id", "utterance": "utt", "speaker": "speaker", "sentence": "sentence"}
MAPPING = (*(f"--{field}={column}" for field, column in FIELDS.items()), "--split=split", "--text=f")


def write(path, names):
    columns = {column: list(names) for column in FIELDS.values()} | {"split": ["train"] * len(names)}
    features = np.arange(2 * len(names), dtype=np.float32).reshape(-1, 2)
    if path.suffix == ".npz":
        np.savez(path, f=features, **{name: np.array(values) for name, values in columns.items()})
    elif path.suffix == ".parquet":
        pa.parquet.write_table(pa.table(columns | {"f": list(features)}), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, "f_0", "f_1"])
            writer.writerows(
                [*row, *values] for row, values in zip(zip(*columns.values(), strict=True), features, strict=True)
            )


@pytest.mark.parametrize("suffix", ["npz", "parquet", "csv"])
def test_tables(tmp_path, capfd, suffix):
    source = tmp_path / f"t.{suffix}"
    arguments = ["table", *MAPPING, "--emotions=calm", "--predict-only", str(source), str(tmp_path / "c")]
    for name, reason in REFUSED.items():
        if not (suffix == "npz" and name == "\x00"):  # NumPy's strings end before it
            write(source, ["sound", name])
            assert exit_status(convert, arguments) == 2
            lines = capfd.readouterr().err.removesuffix("\n").split("\n")
            assert [line.split("'")[0].split()[-1] for line in lines] == ["id", "utterance", "speaker"]
            assert all(reason in line and line.isprintable() and len(line) < 250 for line in lines)
    write(source, NAMES)
    assert exit_status(convert, arguments) == 0
    read = [c for split in load_saved(tmp_path / "c").splits for c in load_saved(tmp_path / "c").conversations(split)]
    for names in ((c.id for c in read), *((getattr(c, f)[0] for c in read) for f in ("utterances", "speakers"))):
        assert sorted(names) == sorted(NAMES)


def test_json_with_halves_of_characters(tmp_path, capfd):
    def status(**changes):
        spoken = {"text": "a", "speaker": "A", "label": "joy", "cls": [0.5, 0.25]}
        for split in ("train", "dev", "test"):
            content = json.dumps([[spoken | {"label": "neutral"}, spoken | (changes if split == "train" else {})]])
            (tmp_path / f"{split}_data_x.json.feature").write_text(content)
        flags = ["--emotions=joy,neutral"] if "label" not in changes else []
        return exit_status(
            convert, ["dag-json", *flags, str(tmp_path), str(tmp_path / f"c{len(list(tmp_path.iterdir()))}")]
        )

    for changes in ({"label": "a\ud800"}, {"speaker": "\udfff"}, {"speaker": "\r"}):
        assert status(**changes) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1 and err[:-1].isprintable()
    assert status(text="it is\n\ud83d\x1b") == 0
    (saved,) = tmp_path.glob("c*")
    assert load_saved(saved).conversations("train")[0].sentences[1] == "it is\n\ufffd\ufffd"


@pytest.mark.parametrize("name", [*REFUSED, "a\ud800"], ids=ascii)
@pytest.mark.parametrize("argument", ["id", "speakers", "utterances"])
def test_conversations_in_memory(name, argument):
    with pytest.raises(UserError, match=rf"^{argument}(\[0\])? (contains U\+|has 2000 characters)"):
        make_conversation({"text": [[1.0]]}, **{argument: name if argument == "id" else [name]})


def test_the_names_of_a_trained_run_come_back(tmp_path, capfd):
    made, names = tiny_corpus(), itertools.cycle(name for name in NAMES if len(name) < 100)
    emotions = (r"$\frac{a}$", "NA", '=1+1, "two"', "👍 <b>\\input{x}")
    splits = {
        split: [
            dataclasses.replace(
                c,
                id=f"{next(names)} {split} {i}",
                utterances=[f"{n}{next(names)}" for n in range(len(c))],
                speakers=[next(names) for _ in range(len(c))],
            )
            for i, c in enumerate(made.conversations(split))
        ]
        for split in made.splits
    }
    card = dataclasses.replace(made.card, emotions=emotions, name="-1+cmd|' /C'!A0")
    save_corpus(make_corpus(splits, card), tmp_path / "corpus")
    run = jmer.train(linear_config(training__epochs=1), tmp_path / "corpus", tmp_path / "run")
    for split, conversations in splits.items():
        read = read_predictions(run.folder / "predictions" / f"{split}.csv")
        assert list(read["conversation"]) == [c.id for c in conversations for _ in c.utterances]
        assert list(read["utterance"]) == [name for c in conversations for name in c.utterances]
        assert list(read["speaker"]) == [name for c in conversations for name in c.speakers]
        gold = [emotions[label] if label >= 0 else "" for c in conversations for label in c.labels]
        assert list(read["gold"]) == gold and set(read["predicted"]) <= set(emotions)
        predicted = run.predict(tmp_path / "corpus", split=split)
        pd.testing.assert_frame_equal(read, predicted[list(read)], check_dtype=False, rtol=1e-5)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "<b>\\input" not in page
    assert "Traceback" not in "".join(capfd.readouterr())


# What a name takes the place of in a small source, and the field of the corpus that it becomes.
TABLE = {"a": "ids", "a_0": "utterances", "F": "speakers", "Oh": "sentences"}
PICKLE = {"Ses01F_impro01": "ids", "Ses01F_impro01_F000": "utterances", "F": "speakers", "Am I?": "sentences"}
PLACES = {
    **dict.fromkeys(("csv", "tsv", "npz", "parquet", "arrow", "dataset"), TABLE),
    # The names of utterances are those of files.
    "frames": {place: field for place, field in TABLE.items() if field != "utterances"},
    "yaml": {"calm": "emotions"},
    "dag-json": {"M": "speakers", "joy": "emotions", "Hi": "sentences"},
    "meld-csv": {"Ross": "speakers", "Well.": "sentences"},
    **dict.fromkeys(("mmgcn", "mmgcn-4", "torch"), PICKLE),
    "mmsa": {"trainA$_$0": "utterances", "Hi": "sentences"},
    "corect": {"train_0": "ids", "F": "speakers", "Oh": "sentences"},
}
FLAGS = {"mmsa": ["--alone"], **{name: ["--emotions=A,B,C,D,E,F"] for name in ("mmgcn", "mmgcn-4", "torch")}}
HALVES = ("npz", "dag-json", "mmgcn", "mmgcn-4", "torch", "mmsa", "corect")
"""The formats that can hold halves of characters."""
FIELDS_READ = ("ids", "utterances", "speakers", "sentences", "emotions")


def renamed(value, names):
    """Returns nested values with other strings."""
    if isinstance(value, dict):
        return {renamed(key, names): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(renamed(item, names) for item in value)
    return names.get(value, value) if isinstance(value, str) else value


def read_source(name, content):
    """Returns what a corpus holds in each field: a list of strings."""
    source = SOURCES[name]
    reader, parser = FORMATS[source.arguments[0]], argparse.ArgumentParser()
    parser.add_argument("sources", type=Path, nargs="+")
    reader.add_arguments(parser)
    source.write(content)
    options = parser.parse_args([*source.arguments[1:], *FLAGS.get(name, ())])
    options.dest = Path("corpus")
    corpus = reader.read(options.sources, options)
    conversations = [c for split in corpus.splits for c in corpus.conversations(split)]
    found = {
        field: [x for c in conversations for x in getattr(c, field)]
        for field in ("utterances", "speakers", "sentences")
    }
    return {**found, "ids": [c.id for c in conversations], "emotions": list(corpus.card.emotions)}


@pytest.mark.parametrize("name", PLACES)
def test_names_of_each_kind_are_read_from_each_format(name):
    places = PLACES[name]
    for kind, given in KEPT_KINDS.items():
        for text in filter(str.strip, given):  # what is blank is no name in most formats
            name_read = text.strip(" ") if name == "meld-csv" else text  # whose speakers have stray blanks
            expected = {
                field: storable(fix_encoding(text)) if field == "sentences" else name_read for field in FIELDS_READ
            }
            with folder():
                found = read_source(name, renamed(SOURCES[name].content, dict.fromkeys(places, text)))
            assert all(expected[field] in found[field] for field in places.values()), (kind, text)
    for kind, given in REFUSED_KINDS.items():
        for text in given if kind != "half a character" or name in HALVES else ():
            with (
                folder(),
                pytest.raises(UserError, match=r"contains U\+[0-9A-F]{4}, |characters: names have") as caught,
            ):
                read_source(name, renamed(SOURCES[name].content, dict.fromkeys(places, text)))
            assert all(len(line) < 250 for line in caught.value.args), (kind, text)


def test_names_of_each_kind_come_back_from_predictions(tmp_path):
    count = len(NAMES)
    card = Card("all", {"text": 1}, NAMES, "made up", synthetic=False)
    made = make_conversation({"text": np.zeros((count, 1))}, utterances=NAMES, speakers=NAMES)
    conversations = [dataclasses.replace(made, id=name, labels=np.arange(count) - 1) for name in NAMES[::9]]
    table = prediction_table(conversations, card, [np.eye(count)] * len(conversations), {})
    for suffix, read in ((".csv", read_predictions), (".parquet", pd.read_parquet)):
        write_predictions(table, tmp_path / f"p{suffix}")
        found = read(tmp_path / f"p{suffix}")
        pd.testing.assert_frame_equal(found, table, check_dtype=False)
        assert list(found["speaker"])[:count] == list(found["predicted"])[:count] == list(NAMES)


def test_names_of_each_kind_are_text_in_figures_tables_and_terminals(tmp_path, capfd):
    short = [name for name in NAMES if len(name) < 100]
    for start in range(0, len(short), 12):
        emotions = short[start : start + 12]
        plot_confusion(np.eye(len(emotions), dtype=int), emotions, tmp_path / "c.png", title=emotions[0])
    lines = markdown_table(["name", "n"], [[name, "1"] for name in NAMES]).splitlines()
    assert len(lines) == len(NAMES) + 2 and all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in lines)
    latex = tables.latex([{"name": name, "n": "1"} for name in NAMES], caption="c", label="l").splitlines()
    rows = [line for line in latex if line.endswith(r"& 1 \\")]
    assert len(rows) == len(NAMES)
    assert not any(
        re.search(r"(?<!\\)[$%#_~^{]|\\(?:input|write|frac)", re.sub(r"\\text\w+ ?", "", row)) for row in rows
    )
    for name in NAMES:
        show(name)
    assert len(capfd.readouterr().out.split("\n")) == len(NAMES) + 1
