"""Manifests: every column, times, order, and one line per defect with its line."""

import json

import pytest

from jmer.errors import UserError
from jmer.extract.manifest import SPEAKER, Row, parse_time, read_manifest
from jmer.extract.protocol import Box

HEADER = "conversation,order,speaker,transcript,file,start,end,label,split,utterance"


def write(folder, text, name="talk.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def lines(folder, text, **options):
    with pytest.raises(UserError) as caught:
        read_manifest(write(folder, text, **options))
    return list(caught.value.args)


def test_every_column_is_read(tmp_path):
    path = write(
        tmp_path,
        f"\ufeff{HEADER},face_x,face_y,face_w,face_h\r\n"
        'a,2,Ann,"Hi, ""you""\nthere",v/a.mp4,1:02.5,63.75,joy,dev,u1,1,2,3.5,4\r\n',
    )
    assert read_manifest(path) == [
        Row(
            line="talk.csv, line 2",
            conversation="a",
            speaker="Ann",
            transcript='Hi, "you"\nthere',
            file=tmp_path / "v/a.mp4",
            start=62.5,
            end=63.75,
            order="2",
            label="joy",
            split="validation",
            utterance="u1",
            box=Box(1, 2, 3.5, 4),
        )
    ]


def test_a_row_needs_a_conversation_and_a_transcript_or_a_file_alone(tmp_path):
    found = read_manifest(write(tmp_path, "conversation,transcript,file\na,hello,\na,,x.wav\n\n"))
    assert [(row.speaker, row.transcript, row.file) for row in found] == [
        (SPEAKER, "hello", None),
        (SPEAKER, "", tmp_path / "x.wav"),
    ]


def test_json_lines_give_the_same_rows_as_csv(tmp_path):
    rows = [
        {"conversation": 7, "transcript": "a", "start": 1.5, "end": 2, "file": "x.wav", "label": 0},
        {"conversation": 7, "transcript": "b", "start": "0:03", "end": None, "file": "x.wav", "speaker": "Ben"},
    ]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    of_json = read_manifest(write(tmp_path, text, "talk.jsonl"))
    table = "conversation,transcript,start,end,file,label,speaker\n7,a,1.5,2,x.wav,0,\n7,b,3,,x.wav,,Ben\n"
    of_csv = read_manifest(write(tmp_path, table))
    strip = [[{**vars(row), "line": ""} for row in found] for found in (of_json, of_csv)]
    assert strip[0] == strip[1]


def test_halves_of_characters_are_replaced_in_transcripts_and_refused_in_names(tmp_path):
    """JSON can name them, UTF-8 cannot hold them."""
    row = r'{"conversation": "a", "transcript": "hi \ud83d\u0000"%s}'
    (found,) = read_manifest(write(tmp_path, row % "", "talk.jsonl"))
    assert found.transcript == "hi \ufffd\ufffd"
    assert lines(tmp_path, row % r', "file": "\ud83d.wav"', name="talk.jsonl") == [
        "talk.jsonl, line 1: file contains U+D83D, half of a character, which UTF-8 cannot hold: rename it"
    ]
    assert lines(tmp_path, row % r', "file": "x\u0000"', name="talk.jsonl") == [
        "talk.jsonl, line 1: file contains U+0000, a control character: rename it"
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("12", 12), ("12.5", 12.5), (" .5", 0.5), ("1:02.5", 62.5), ("01:00:00", 3600), ("1:02:03,25", 3723.25)],
)
def test_times_are_seconds_or_clock_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1:60", "1:61:00", "1:2:3:4", "1e3", "nan", "inf", "1..2", "1:-2"])
def test_anything_else_is_no_time(text):
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text)


def test_utterances_are_sorted_by_order_by_start_or_as_in_the_file(tmp_path):
    def order(rows, header):
        return [row.transcript for row in read_manifest(write(tmp_path, "\n".join([header, *rows])))]

    assert order(["a,10,x", "b,1,y", "a,9,z"], "conversation,order,transcript") == ["z", "x", "y"]
    assert order(["a,5,6,x", "a,1,2,y"], "conversation,start,end,transcript") == ["y", "x"]
    # Times in different recordings say nothing of the order.
    assert order(["a,5,6,u.wav,x", "a,1,2,v.wav,y"], "conversation,start,end,file,transcript") == ["x", "y"]
    assert order(["a,x", "b,y", "a,z"], "conversation,transcript") == ["x", "z", "y"]


def test_all_defects_are_reported_at_once_with_their_lines(tmp_path):
    found = lines(
        tmp_path,
        "conversation,speaker,start,end,split,transcript,file,colour\n"
        ",Ann,1,2,train,hi,x.wav,red\n"
        "a,A\x01,1,2,train,hi,x.wav,\n"
        "a,Ann,2,1,train,hi,x.wav,\n"
        "a,Ann,1:99,,training,hi,x.wav,\n"
        "a,Ann,,,train,,,\n",
    )
    assert found == [
        "talk.csv, line 2: unknown column 'colour': the columns are conversation, order, speaker, transcript, file, "
        "start, end, label, split, utterance, face_x, face_y, face_w, face_h",
        "talk.csv, line 2: conversation is empty: name the conversation of each row",
        "talk.csv, line 3: speaker contains U+0001, a control character: rename it",
        "talk.csv, line 4: end 1 is not after start 2",
        "talk.csv, line 5: start: '1:99' is no time: minutes and seconds are below 60",
        "talk.csv, line 5: split is 'training': expected one of train, valid, validation, dev, val, test",
        "talk.csv, line 6: has neither a transcript nor a file: give one of them",
    ]


def test_only_the_first_ten_defects_are_shown(tmp_path):
    found = lines(tmp_path, "conversation,transcript\n" + "a,\n" * 25)
    assert len(found) == 11 and found[-1] == "and 15 more"


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["a,1,,hi", "a,1,,ho"], "talk.csv, line 3: order 1 of conversation 'a' is also in line 2"),
        (["a,,u,hi", "a,,u,ho"], "talk.csv, line 3: utterance u of conversation 'a' is also in line 2"),
        (["a,1,,hi", "a,,,ho"], "talk.csv, line 3: order is empty, and other rows of conversation 'a' have one"),
    ],
    ids=["order", "utterance", "some without order"],
)
def test_what_is_there_twice_is_an_error(tmp_path, rows, line):
    assert lines(tmp_path, "\n".join(["conversation,order,utterance,transcript", *rows])) == [line]


def test_a_conversation_is_in_one_split(tmp_path):
    assert lines(tmp_path, "conversation,split,transcript\na,train,x\nb,test,x\na,test,y\n") == [
        "talk.csv, line 4: conversation 'a' is in the splits train and test: a conversation is in one"
    ]


@pytest.mark.parametrize(
    ("content", "name", "line"),
    [
        ("conversation,transcript\na,caf\xe9\n", "talk.csv", "talk.csv, line 2: is not UTF-8: save it as UTF-8"),
        ("conversation,transcript\na\n", "talk.csv", "talk.csv, line 2: has 1 cells, the header has 2"),
        ('conversation,transcript\na,"x\n', "talk.csv", "talk.csv, line 2: is no row of a csv file"),
        ("a,a\n1,2\n", "talk.csv", "talk.csv, line 1: column 'a' is there twice"),
        ("", "talk.csv", "has no rows"),
        ("conversation,transcript\n", "talk.csv", "has no rows"),
        ("{", "talk.jsonl", "talk.jsonl, line 1: is no JSON"),
        ("[" * 100_000, "talk.jsonl", "talk.jsonl, line 1: is no JSON"),
        ("[1]", "talk.jsonl", "talk.jsonl, line 1: is no object"),
        ('{"conversation": "a", "transcript": ["x"]}', "talk.jsonl", "transcript is a list: expected text or a number"),
        ('{"conversation": "a\\ud800", "transcript": "x"}', "talk.jsonl", "conversation contains U\\+D800"),
        ("x", "talk.doc", "expected a manifest that ends in .csv or .jsonl"),
    ],
    ids=[
        "not UTF-8",
        "few cells",
        "open quote",
        "column twice",
        "empty",
        "header alone",
        "cut json",
        "deep json",
        "no object",
        "list",
        "surrogate",
        "suffix",
    ],
)
def test_a_file_that_is_no_manifest_gets_one_line(tmp_path, content, name, line):
    path = write(tmp_path, content, name, encoding="cp1252")
    with pytest.raises(UserError, match=line) as caught:
        read_manifest(path)
    assert len(caught.value.args) == 1


def test_another_encoding_is_read_if_it_is_named(tmp_path):
    path = write(tmp_path, "conversation,transcript\na,caf\xe9\n", encoding="cp1252")
    assert read_manifest(path, "cp1252")[0].transcript == "caf\xe9"
    with pytest.raises(UserError, match="--encoding cp9999 is unknown"):
        read_manifest(path, "cp9999")


def test_a_manifest_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*talk\.csv: No such file"):
        read_manifest(tmp_path / "talk.csv")


@pytest.mark.parametrize("face", ["1,2,3,", "1,2,0,4", "x,2,3,4", "1,2,nan,4"])
def test_a_box_has_four_numbers_and_an_area(tmp_path, face):
    found = lines(tmp_path, f"conversation,transcript,face_x,face_y,face_w,face_h\na,hi,{face}\n")
    assert any("face" in line for line in found)
