"""Tables in three formats give the same corpus, and each error in a table or a mapping is reported in one line."""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from jmer.data.readers import table
from jmer.data.readers.mapping import Columns
from jmer.data.readers.presets import PRESETS
from jmer.errors import UserError

FLAGS = [
    "--conversation=talk",
    "--speaker=who",
    "--label=emotion",
    "--split=part",
    "--text=words",
    "--audio=sound",
    "--emotions=calm,angry",
]

# Two conversations whose rows alternate, one in another split; NaN in one row of `sound`.
COLUMNS = {
    "talk": np.array(["t1", "t2", "t1", "t2", "t3"]),
    "when": np.array([5, 9, 3, 10, 1]),
    "name": np.array(["u0", "u1", "u2", "u3", "u4"]),
    "who": np.array(["Zoë", "A", "B", "A", "A"]),
    "emotion": np.array(["angry", "calm", "calm", "", "angry"]),
    "part": np.array(["train", "train", "train", "train", "dev"]),
    "said": np.array(['“Oh”, "no",\nhe said', "", "NA", "yes", "12"]),
    "words": np.arange(15, dtype=np.float16).reshape(5, 3) / 8,
    "sound": np.array([[1, 2], [3, np.nan], [0, 0], [-5, 1e-3], [7, 8]], np.float32),
}


def read(sources, *flags):
    parser = argparse.ArgumentParser()
    table.add_arguments(parser)
    return table.read(sources, parser.parse_args(flags))


def write(path, columns, lists=False):
    if path.suffix == ".npz":
        np.savez(path, **columns)
        return path
    arrow = {}
    for name, values in columns.items():
        if values.ndim == 1:
            arrow[name] = pa.array(values)
        elif lists:
            arrow[name] = pa.array(list(values))
        else:
            arrow |= {f"{name}_{i}": pa.array(column.astype(np.float32)) for i, column in enumerate(values.T)}
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table(arrow), path)
    else:
        pa.csv.write_csv(pa.table(arrow), path)
    return path


def contents(corpus):
    return {
        split: [
            (
                c.id,
                list(c.utterances),
                list(c.speakers),
                c.labels.tolist(),
                list(c.sentences),
                {m: (c.features[m].tolist(), c.available[m].tolist()) for m in corpus.card.modalities},
            )
            for c in corpus.conversations(split)
        ]
        for split in corpus.splits
    }


@pytest.fixture(params=["npz", "parquet numbered", "parquet lists", "csv"])
def source(request, tmp_path):
    kind, *layout = request.param.split()
    return write(tmp_path / f"made.{kind}", COLUMNS, lists=layout == ["lists"])


def test_every_format_gives_the_same_corpus(source):
    corpus = read([source], *FLAGS, "--utterance=name", "--sentence=said")
    words = COLUMNS["words"].astype(np.float32)
    assert contents(corpus) == {
        "train": [
            (
                "t1",
                ["u0", "u2"],
                ["Zoë", "B"],
                [1, 0],
                [COLUMNS["said"][0], "NA"],
                {"text": (words[[0, 2]].tolist(), [True, True]), "audio": ([[1, 2], [0, 0]], [True, True])},
            ),
            (
                "t2",
                ["u1", "u3"],
                ["A", "A"],
                [0, -1],
                ["", "yes"],
                {
                    "text": (words[[1, 3]].tolist(), [True, True]),
                    "audio": ([[0, 0], [-5, float(np.float32(1e-3))]], [False, True]),
                },
            ),
        ],
        "validation": [
            ("t3", ["u4"], ["A"], [1], ["12"], {"text": (words[4:].tolist(), [True]), "audio": ([[7, 8]], [True])})
        ],
    }
    assert (corpus.card.widths, corpus.card.emotions) == ({"text": 3, "audio": 2}, ("calm", "angry"))
    assert corpus.card.provenance == f"Converted from the table {source.name}: text from words, audio from sound."
    assert (corpus.card.name, corpus.card.synthetic) == ("made", False)


def test_an_order_column_sorts_numbers_as_numbers(source):
    train = read([source], *FLAGS, "--utterance=name", "--order=when").conversations("train")
    assert [list(c.utterances) for c in train] == [["u2", "u0"], ["u1", "u3"]]


def test_without_an_order_the_rows_of_several_files_are_concatenated(tmp_path):
    first = write(tmp_path / "first.npz", COLUMNS)
    later = {name: values[[3, 0]] for name, values in COLUMNS.items()}
    second = write(tmp_path / "second.npz", later | {"name": np.array(["v0", "v1"])})
    train = read([first, second], *FLAGS, "--utterance=name").conversations("train")
    assert [list(c.utterances) for c in train] == [["u0", "u2", "v1"], ["u1", "u3", "v0"]]
    np.testing.assert_array_equal(train[0].features["text"], COLUMNS["words"][[0, 2, 0]])


def test_utterances_without_ids_are_numbered(source):
    assert [list(c.utterances) for c in read([source], *FLAGS).conversations("train")] == [["0", "1"], ["0", "1"]]


def test_labels_may_be_numbers_and_empty_cells_are_unlabelled(tmp_path):
    numbers = COLUMNS | {"emotion": np.array([1, 0, -1, 1, 0])}
    corpus = read([write(tmp_path / "a.npz", numbers)], *FLAGS)
    assert [c.labels.tolist() for c in corpus.conversations("train")] == [[1, -1], [0, 1]]
    path = write(tmp_path / "a.csv", numbers)
    path.write_text(path.read_text().replace('"t1",3,"u2","B",-1', '"t1",3,"u2","B",'))
    assert contents(read([path], *FLAGS)) == contents(corpus)
    nans = numbers | {"emotion": np.array([1, 0, np.nan, 1, 0])}
    assert contents(read([write(tmp_path / "b.npz", nans)], *FLAGS)) == contents(corpus)


def test_numerals_in_a_column_of_text_are_indices_and_minus_one_is_unlabelled(tmp_path):
    labels = {"emotion": np.array(["angry", "-1", " 0 ", "-1.0", "1"])}
    sources = [write(tmp_path / f"a.{suffix}", COLUMNS | labels) for suffix in ("npz", "parquet", "csv")]
    sources.append(write(tmp_path / "bytes.npz", COLUMNS | {"emotion": labels["emotion"].astype("S")}))
    arrow = pa.parquet.read_table(sources[1])
    categories = arrow.drop_columns("emotion").append_column("emotion", arrow["emotion"].dictionary_encode())
    pa.parquet.write_table(categories, tmp_path / "categories.parquet")
    as_bytes = arrow.drop_columns("emotion").append_column("emotion", arrow["emotion"].cast(pa.binary()))
    pa.parquet.write_table(as_bytes, tmp_path / "binary.parquet")
    for source in (*sources, tmp_path / "categories.parquet", tmp_path / "binary.parquet"):
        corpus = read([source], *FLAGS)
        assert [c.labels.tolist() for split in corpus.splits for c in corpus.conversations(split)] == [
            [1, 0],
            [-1, -1],
            [1],
        ]


def test_emotions_named_by_numerals_or_truth_values_are_names_in_every_format(tmp_path):
    numbers = np.array([1, 2, 3, 2, 1])
    for suffix in ("npz", "parquet", "csv"):
        source = write(tmp_path / f"a.{suffix}", COLUMNS | {"emotion": numbers})
        train = read([source], *FLAGS, "--emotions=1,2,3").conversations("train")
        assert [c.labels.tolist() for c in train] == [[0, 2], [1, 1]]
        source = write(tmp_path / f"b.{suffix}", COLUMNS | {"emotion": np.array(["True", "False"] * 2 + ["True"])})
        train = read([source], *FLAGS, "--emotions=True,False").conversations("train")
        assert [c.labels.tolist() for c in train] == [[0, 0], [1, 1]]


def test_labels_that_are_no_emotions_are_declared_by_name(tmp_path):
    labels = {"emotion": np.array(["exc", "xxx", "hap", "sad", "0"])}
    for suffix in ("npz", "csv"):
        source = write(tmp_path / f"a.{suffix}", COLUMNS | labels)
        corpus = read([source], *FLAGS, "--emotions=hap,sad", "--unlabelled=xxx,oth", "--merge=exc=hap")
        assert corpus.card.emotions == ("hap", "sad", "xxx", "oth", "exc")
        assert [c.labels.tolist() for c in corpus.conversations("train")] == [[4, 0], [2, 1]]
        assert (
            "has label 'xxx' in row 2: the emotions are 0 hap, 1 sad: name it in --emotions, or declare it with "
            "--unlabelled or --merge"
        ) in refusal([source], *FLAGS, "--emotions=hap,sad", "--merge=exc=hap")
        assert "--merge exd=hap: no utterance is labelled 'exd'" in refusal(
            [source], *FLAGS, "--emotions=hap,sad", "--unlabelled=xxx", "--merge=exc=hap,exd=hap"
        )


def test_ids_that_look_like_numbers_stay_as_they_are(tmp_path):
    path = write(tmp_path / "a.csv", COLUMNS)
    path.write_text(path.read_text().replace('"t2"', "007"))
    assert [c.id for c in read([path], *FLAGS).conversations("train")] == ["t1", "007"]
    path.write_text(path.read_text().replace('"t1"', "7").replace('"t3"', "8"))
    assert [c.id for c in read([path], *FLAGS).conversations("train")] == ["7", "007"]


def test_numbered_columns_are_ordered_by_number(tmp_path):
    values = np.arange(5 * 12, dtype=np.float32).reshape(5, 12)
    shuffled = {f"wide{i}": values[:, i] for i in np.random.default_rng(0).permutation(12)}
    corpus = read([write(tmp_path / "a.csv", COLUMNS | shuffled)], *FLAGS, "--visual=wide")
    np.testing.assert_array_equal(corpus.conversations("train")[0].features["visual"], values[[0, 2]])


def test_an_empty_list_cell_is_unavailable(tmp_path):
    path = write(tmp_path / "a.parquet", COLUMNS, lists=True)
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float16()), pa.list_(pa.float64(), 2)):
        sound = pa.array([[1, 2], None, [0, 0], [-5, None], [7, 8]], kind)
        arrow = pa.parquet.read_table(path).drop_columns("sound").append_column("sound", sound)
        pa.parquet.write_table(arrow, tmp_path / "b.parquet")
        train = read([tmp_path / "b.parquet"], *FLAGS).conversations("train")
        assert [c.available["audio"].tolist() for c in train] == [[True, True], [False, False]]
        assert train[0].features["audio"].tolist() == [[1, 2], [0, 0]]


SCENES = {
    "season": np.repeat([1, 1, 1, 1, 2, 2], 3),
    "episode": np.repeat([1, 1, 2, 2, 1, 1], 3),
    "scene": np.repeat([1, 2, 1, 2, 1, 2], 3),
    "line": np.tile([2, 1, 4], 6),
    "start": np.arange(18) / 7,
    "who": np.array(["A", "B"] * 9),
    "emotion": np.array(["calm", "angry", "calm"] * 6),
    "part": np.array(["train"] * 18),
    "words": np.arange(18.0).reshape(18, 1),
}
SCENE_FLAGS = ["--speaker=who", "--label=emotion", "--split=part", "--text=words", "--emotions=calm,angry"]


@pytest.mark.parametrize("suffix", ["npz", "parquet", "csv"])
def test_several_columns_form_the_id_of_a_conversation(suffix, tmp_path, caplog):
    columns = {name: values for name, values in SCENES.items() if name != "words"} | {"words_0": np.arange(18.0)}
    source = write(tmp_path / f"a.{suffix}", SCENES if suffix == "npz" else columns)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("conversation: [season, episode, scene]\n")
    for flags in (["--conversation=season,episode, scene"], [f"--columns={mapping}"]):
        train = read([source], *SCENE_FLAGS, *flags, "--order=line").conversations("train")
        assert [c.id for c in train] == ["1_1_1", "1_1_2", "1_2_1", "1_2_2", "2_1_1", "2_1_2"]
        assert [c.features["text"].ravel().tolist() for c in train[:2]] == [[1, 0, 2], [4, 3, 5]]
    assert caplog.text == ""
    named = write(tmp_path / "comma.npz", SCENES | {"season,scene": SCENES["season"] * 10 + SCENES["scene"]})
    commas = read([named], *SCENE_FLAGS, "--conversation=season,scene").conversations("train")
    assert [c.id for c in commas] == ["11", "12", "21", "22"]
    assert "has no column 'act' for the conversation" in refusal([source], *SCENE_FLAGS, "--conversation=act,scene")


@pytest.mark.parametrize("field", ["order", "utterance"])
def test_ids_that_restart_are_refused_with_the_columns_that_tell_them_apart(field, tmp_path):
    source = write(tmp_path / "a.npz", SCENES)
    flags = [*SCENE_FLAGS, "--conversation=scene", f"--{field}=line"]
    value = "2" if field == "order" else "'2'"
    assert (
        f"a.npz: conversation '1' has {field} {value} of column 'line' in rows 1, 7 and 13, and 1 more have such rows: "
        "conversations with the same id are told apart by --conversation season,episode,scene"
    ) in refusal([source], *flags)
    few = {name: values for name, values in SCENES.items() if name != "season"}
    message = refusal([write(tmp_path / "few.npz", few)], *flags)
    assert "give all columns that form them, --conversation A,B,C" in message
    assert f"otherwise give --{field} another column, or none (--{field}=)" in message


def test_ids_that_restart_in_every_split_and_episode_are_refused_with_both_remedies(tmp_path):
    columns = SCENES | {"part": np.array(["train"] * 12 + ["test"] * 6)}
    source = write(tmp_path / "a.npz", columns)
    flags = [*SCENE_FLAGS, "--conversation=scene", "--order=line"]
    assert refusal([source], *flags) == (
        "conversation '1' is in more than one split: train, test: give --ids-per-split if ids restart in every split, "
        "--conversation season,episode,scene if they restart more often, or correct the split of its rows"
    )


def test_equal_orders_in_two_files_and_as_text_are_found(tmp_path):
    half = {name: values[:9] for name, values in SCENES.items()}
    one, two = write(tmp_path / "one.npz", half), write(tmp_path / "two.npz", half)
    flags = [*SCENE_FLAGS, "--conversation=season,episode,scene", "--order=line"]
    assert "conversation '1_1_1' has order 2 of column 'line' in rows 1 of one.npz and 1 of two.npz" in refusal(
        [one, two], *flags
    )
    assert f"{one} is given twice: give each file once" in refusal([one, two, tmp_path / "." / "one.npz"], *flags)
    text = half | {"line": np.array(["2", "10", "2.0"] * 3)}
    assert "has order '2' of column 'line' in rows 1 and 3" in refusal([write(tmp_path / "t.npz", text)], *flags)
    sorted_text = half | {"line": np.array(["2", "10", "9"] * 3)}
    train = read([write(tmp_path / "s.npz", sorted_text)], *flags).conversations("train")
    assert train[0].features["text"].ravel().tolist() == [0, 2, 1]


def test_conversations_whose_rows_are_not_contiguous_are_told(tmp_path, caplog):
    source = write(tmp_path / "a.npz", SCENES)
    assert len(read([source], *SCENE_FLAGS, "--conversation=scene").conversations("train")) == 2
    (line,) = caplog.messages
    assert "a.npz: the rows of 2 of 2 conversations are not contiguous, for example '1' begins again in rows 7" in line
    assert "give --conversation season,episode,scene; if rows are shuffled, give --order" in line
    caplog.clear()
    # Times never repeat, so that only the parts show that conversations are merged.
    read([source], *SCENE_FLAGS, "--conversation=scene", "--order=start")
    assert "not contiguous" in caplog.text and "shuffled" not in caplog.text
    caplog.clear()
    shuffled = np.random.default_rng(0).permutation(18)
    path = write(tmp_path / "shuffled.npz", {name: values[shuffled] for name, values in SCENES.items()})
    read([path], *SCENE_FLAGS, "--conversation=season,episode,scene", "--order=line")
    assert caplog.text == ""


def test_splits_are_named_in_any_case(tmp_path):
    parts = {"part": np.array(["Train", " train ", "TRAIN", "train", "Dev"])}
    for suffix in ("npz", "csv"):
        corpus = read([write(tmp_path / f"a.{suffix}", COLUMNS | parts)], *FLAGS)
        assert {split: len(corpus.conversations(split)) for split in corpus.splits} == {"train": 2, "validation": 1}


def test_ids_that_restart_in_every_split_are_made_unique(source):
    flags = [*FLAGS, "--conversation=part"]
    assert [c.id for c in read([source], *flags, "--ids-per-split").conversations("validation")] == ["validation_dev"]


def test_yaml_overrides_the_preset_and_flags_override_both(tmp_path, monkeypatch):
    preset = {"conversation": "nonsense", "speaker": "who", "split": "part", "text": "words", "emotions": ("x",)}
    monkeypatch.setitem(PRESETS, "mine", preset)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("conversation: talk\nlabel: nonsense\nemotions: [calm, angry]\nids_per_split: true\n")
    source = write(tmp_path / "a.npz", COLUMNS)
    corpus = read([source], "--preset=mine", f"--columns={mapping}", "--label=emotion")
    assert [c.id for c in corpus.conversations("train")] == ["train_t1", "train_t2"]
    assert (corpus.card.name, corpus.card.emotions, corpus.card.modalities) == ("mine", ("calm", "angry"), ("text",))


def test_an_empty_name_leaves_a_column_out(tmp_path):
    source = write(tmp_path / "a.npz", COLUMNS)
    corpus = read([source], *FLAGS, "--order=when", "--audio=", "--order=")
    assert corpus.card.widths == {"text": 3}
    np.testing.assert_array_equal(corpus.conversations("train")[0].features["text"], COLUMNS["words"][[0, 2]])
    unlabelled = read([source], *FLAGS, "--label=", "--predict-only").conversations("train")
    assert [c.labels.tolist() for c in unlabelled] == [[-1, -1], [-1, -1]]


def test_a_corpus_to_predict_needs_neither_training_rows_nor_labels(tmp_path):
    rows = {name: values for name, values in COLUMNS.items() if name != "emotion"}
    source = write(tmp_path / "a.npz", rows | {"part": np.array(["test"] * 5)})
    flags = [flag for flag in FLAGS if not flag.startswith("--label")]
    corpus = read([source], *flags, "--predict-only")
    assert [c.labels.tolist() for c in corpus.conversations("test")] == [[-1, -1], [-1, -1], [-1]]
    bare = [flag for flag in flags if not flag.startswith(("--split", "--emotions"))]
    without_splits = read([source], *bare, "--predict-only")
    assert (list(without_splits.splits), without_splits.card.emotions) == (["test"], ())
    with pytest.raises(UserError, match="no column for the label: give --label COLUMN, or --predict-only"):
        read([source], *flags)
    with pytest.raises(UserError, match="no column for the split: give --split COLUMN, or --predict-only"):
        read([source], *bare, "--label=emotion", "--emotions=calm")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_reads_its_table_with_test_rows(preset, tmp_path):
    mapping = Columns(**PRESETS[preset])
    rows = np.arange(12)
    split = np.array(["train"] * 8 + ["test"] * 4)
    columns = {
        mapping.conversation: np.array([f"c{i // 2}" for i in rows]),
        mapping.split: split,
        mapping.label: np.array(mapping.emotions)[rows % len(mapping.emotions)]
        if preset == "meld"
        else rows % len(mapping.emotions),
    } | {column: np.ones((12, 4), np.float16) for column in mapping.modalities.values()}
    for column in (mapping.speaker, mapping.utterance, mapping.order, mapping.sentence):
        if column and column not in columns:
            columns[column] = rows[::-1]
    source = write(tmp_path / "a.npz", columns)
    corpus = read([source], f"--preset={preset}")
    assert {s: sum(map(len, corpus.conversations(s))) for s in corpus.splits} == {"train": 8, "test": 4}
    first = corpus.conversations("train")[0]
    expected = [1, 0] if mapping.order else [0, 1]
    assert first.labels.tolist() == expected


ERRORS = {
    "unknown preset": (
        ["--preset=iemocap"],
        {},
        "unknown preset 'iemocap': the presets are iemocap6, iemocap4, mosi, meld",
    ),
    "no such column": (
        [*FLAGS, "--order=start"],
        {},
        "has no column 'start' for the order: it has talk, when, name, who, emotion, part, said, words, sound",
    ),
    "no such features": ([*FLAGS, "--audio=noise"], {}, "has no column 'noise' for audio: it has talk, when"),
    "no conversation": (FLAGS[1:], {}, "no column for the conversation: give --conversation COLUMN, --columns YAML"),
    "no features": ([*FLAGS[:4], FLAGS[6]], {}, "no column of features: give --text, --audio or --visual COLUMN"),
    "no emotions": (FLAGS[:-1], {}, "no emotions: give --emotions A,B"),
    "unknown label": (
        FLAGS,
        {"emotion": np.array(["calm", "calm", "sad", "", "angry"])},
        "column 'emotion' has label 'sad' in row 3: the emotions are 0 calm, 1 angry",
    ),
    "label out of range": (FLAGS, {"emotion": np.arange(5)}, "has label 2 in row 3: the emotions are 0 calm, 1 angry"),
    "unknown split": (
        FLAGS,
        {"part": np.array(["train", "train", "train", "train", "eval"])},
        "column 'part' has split 'eval' in row 5: expected one of train, valid, validation, dev, val, test",
    ),
    "no training rows": (
        FLAGS,
        {"part": np.array(["test"] * 5)},
        "no row of column 'part' is train, only test: add training rows, or give --predict-only",
    ),
    "split conversation": (
        FLAGS,
        {"part": np.array(["train", "train", "dev", "train", "dev"])},
        "conversation 't1' is in more than one split: train, validation: give --ids-per-split if ids restart",
    ),
    "infinity": (
        FLAGS,
        {"sound": np.full((5, 2), np.inf)},
        "train, conversation 't1': audio of utterance '0' contains NaN or infinity (and 1 more), 4 values in total",
    ),
    "too large for float32": (
        FLAGS,
        {"sound": np.full((5, 2), 1e200)},
        "audio of utterance '0' contains NaN or infinity",
    ),
    "empty speaker": (
        FLAGS,
        {"who": np.array(["A", "", "B", "A", "A"])},
        "column 'who' is empty in row 2: give the speaker",
    ),
    "repeated utterance": (
        [*FLAGS, "--utterance=who"],
        {},
        "conversation 't2' has utterance 'A' of column 'who' in rows 2 and 4: if ids of conversations restart",
    ),
    "text as features": ([*FLAGS, "--audio=said"], {}, "column 'said' is <U19: expected numbers"),
    "one number as features": (
        [*FLAGS, "--audio=when"],
        {},
        "column 'when' for audio has shape (5,): expected [rows, width]",
    ),
    "half a name": (
        [*FLAGS, "--text=loud"],
        {"loud100": np.ones((5, 4))},
        "has no column 'loud' for text, and 'loud100' of shape (5, 4) is not a numbered column of it",
    ),
    "features as text": ([*FLAGS, "--speaker=words"], {}, "column 'words' has shape (5, 3): expected one value"),
    "mixed lengths": (FLAGS, {"who": np.array(["A", "B"])}, "column 'who' has 2 rows but 'talk' has 5"),
    "missing order": (
        [*FLAGS, "--order=when"],
        {"when": np.array([1, 2, np.nan, 3, 4])},
        "conversation 't1': the order has empty cells, or both numbers and text",
    ),
    "no rows": (
        FLAGS,
        {name: values[:0] for name, values in COLUMNS.items()},
        "has no rows: expected one per utterance",
    ),
}


@pytest.mark.parametrize(("flags", "changes", "message"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line(flags, changes, message, tmp_path, request):
    source = write(tmp_path / "made.npz", COLUMNS | changes)
    with pytest.raises(UserError) as refusal:
        read([source], *flags)
    assert message in str(refusal.value)
    defects_of_several_conversations = ("infinity", "too large for float32")
    assert len(str(refusal.value).splitlines()) == 1 or request.node.callspec.id in defects_of_several_conversations


def refusal(sources, *flags):
    with pytest.raises(UserError) as caught:
        read(sources, *flags)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_file_that_is_not_a_table_is_refused(tmp_path):
    assert "no file" in refusal([tmp_path / "missing.npz"], *FLAGS)
    (tmp_path / "a.bin").write_bytes(b"\1\2\3")
    assert "a.bin: expected a .npz, .parquet, .csv, .tsv, .txt, .arrow, .feather file, not '.bin'" in refusal(
        [tmp_path / "a.bin"], *FLAGS
    )
    (tmp_path / "a.npz").write_text("404: Not Found")
    message = refusal([tmp_path / "a.npz"], *FLAGS)
    assert "a.npz is a text file that begins with '404: Not Found': if it is a table, name it .csv or .tsv" in message
    (tmp_path / "empty.csv").write_text("")
    assert "empty.csv is empty: get the file again" in refusal([tmp_path / "empty.csv"], *FLAGS)
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert "one.npz is a single NumPy array (.npy): save all columns in one file" in refusal(
        [tmp_path / "one.npz"], *FLAGS
    )


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(suffix, kept, tmp_path):
    path = write(tmp_path / f"cut.{suffix}", COLUMNS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert f"cut.{suffix} is truncated or not a .{suffix} file: save it again" in refusal([path], *FLAGS)


def test_a_damaged_column_is_refused(tmp_path):
    path = write(tmp_path / "bad.npz", COLUMNS)
    whole = path.read_bytes()
    at = whole.index(COLUMNS["words"].tobytes())
    path.write_bytes(whole[:at] + b"\xff" * 8 + whole[at + 8 :])
    assert "bad.npz: column 'words' is truncated or damaged: save the file again" in refusal([path], *FLAGS)


def test_errors_in_csv_and_parquet_are_refused(tmp_path):
    path = write(tmp_path / "a.csv", COLUMNS)
    text = path.read_text()
    path.write_text(text + "1,2\n")
    message = refusal([path], *FLAGS)
    assert "a.csv is not a table: every row needs as many cells as the header (CSV parse error: Expected 12" in message
    path.write_text(text.replace('"words_1"', '"words_7"'))
    assert "columns words_0 to words_7 for text, number 1 is missing" in refusal([path], *FLAGS)
    path.write_text(text.replace('"sound_1"', '"sound_0"'))
    assert "a.csv has 2 columns named 'sound_0': rename them" in refusal([path], *FLAGS)
    path.write_text(text.replace("0.125", "loud"))
    assert "column 'words_1' is string: expected numbers" in refusal([path], *FLAGS)
    path.write_text(text)
    assert "has no column 'noise' for audio: it has" in refusal([path], *FLAGS, "--audio=noise")
    assert "said, words_0..words_2, sound_0, sound_1" in refusal([path], *FLAGS, "--audio=noise")
    path = write(tmp_path / "a.parquet", COLUMNS, lists=True)
    assert "column 'words' is list<" in refusal([path], *FLAGS, "--label=words")
    sound = pa.array([[1.0, 2.0], None, [0.0], [1.0, 2.0], [1.0]])
    pa.parquet.write_table(pa.parquet.read_table(path).drop_columns("sound").append_column("sound", sound), path)
    assert "column 'sound' has different widths, 2 values at first and 1 in row 3" in refusal([path], *FLAGS)


def test_a_list_of_numbers_beyond_float32_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", COLUMNS | {"sound": np.full((5, 2), 1e200)}, lists=True)
    with pytest.raises(UserError, match="audio of utterance '0' contains NaN or infinity"):
        read([path], *FLAGS)


def test_files_with_different_features_are_refused(tmp_path):
    one = write(tmp_path / "one.npz", COLUMNS)
    two = write(tmp_path / "two.npz", COLUMNS | {"sound": np.ones((5, 4))})
    message = refusal([one, two], *FLAGS)
    assert "audio has width 2 in" in message and "one.npz but 4 in" in message and "two.npz" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a, b", "is not a YAML file: write one `field: column` per line (while parsing a flow sequence"),
        ("- talk", "is not a mapping: write one `field: column` per line"),
        ("dialog: talk", "unknown field 'dialog': the fields are conversation, order, speaker"),
        ("label: 3", "label is 3: expected the name of a column"),
        ("emotions: calm", "emotions is 'calm': expected a list of names"),
        ("conversation: 3", "conversation is 3: expected the name of a column, or a list of them"),
        ("ids_per_split: text", "ids_per_split is 'text': expected true or false"),
    ],
)
def test_an_error_in_the_yaml_file_is_one_line(text, message, tmp_path):
    (tmp_path / "mapping.yaml").write_text(text)
    assert message in refusal([tmp_path / "a.npz"], f"--columns={tmp_path / 'mapping.yaml'}")
    assert "no file" in refusal([tmp_path / "a.npz"], f"--columns={tmp_path / 'missing.yaml'}")
