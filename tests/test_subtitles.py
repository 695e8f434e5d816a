"""Subtitles, transcripts of recognisers and diarisations become utterances with times and speakers."""

import json
import sys

import pytest

from jmer.errors import UserError
from jmer.extract.sources import rows_of, rows_of_json
from jmer.extract.subtitles import Caption, SpeakerTurn, assign_speakers, read_captions, read_speaker_turns

SRT = """1
00:00:01,000 --> 00:00:02,500
Ann: Hi <i>there</i>
you

2
01:00:03,250 --> 01:00:04,000
{\\an8}Note: this is 10:30

3
01:00:05,000 --> 01:00:06,000

"""
VTT = """WEBVTT

NOTE a remark

00:01.000 --> 00:02.500
<v Ann>Hi there

01:00:03.250 --> 01:00:04.000 align:start
Ben: no
"""
TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "Ann"
        xmin = 0
        xmax = 2
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = "hello"
        intervals [2]:
            xmin = 1.25
            xmax = 2
            text = ""
    item [2]:
        class = "IntervalTier"
        name = "Ben"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0.5
            xmax = 2
            text = "well"
"""
SEGMENTS = [{"start": 0.5, "end": 1, "text": " hello ", "speaker": "S1"}, {"start": 1, "end": 2.0, "text": "you"}]
RTTM = "SPEAKER a 1 0.0 2.7 <NA> <NA> ann <NA> <NA>\n;; a remark\nSPEAKER a 1 2.7 2 <NA> <NA> ben <NA> <NA>\n"


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "captions"),
    [
        (
            "a.srt",
            SRT,
            [Caption(1.0, 2.5, "Hi there you", "Ann"), Caption(3603.25, 3604.0, "this is 10:30", "Note")],
        ),
        ("a.vtt", VTT, [Caption(1.0, 2.5, "Hi there", "Ann"), Caption(3603.25, 3604.0, "no", "Ben")]),
        ("a.TextGrid", TEXTGRID, [Caption(0.0, 1.25, "hello", "Ann"), Caption(0.5, 2.0, "well", "Ben")]),
        ("a.json", json.dumps(SEGMENTS), [Caption(0.5, 1, "hello", "S1"), Caption(1, 2.0, "you")]),
        ("a.json", json.dumps({"segments": SEGMENTS}), [Caption(0.5, 1, "hello", "S1"), Caption(1, 2.0, "you")]),
    ],
    ids=["srt", "vtt", "TextGrid", "segments", "segments in an object"],
)
def test_captions_have_times_text_and_speaker(tmp_path, name, text, captions):
    assert read_captions(write(tmp_path, name, text)) == captions


def test_a_time_or_a_sentence_before_a_colon_is_no_speaker(tmp_path):
    segments = [
        {"start": 0, "end": 1, "text": "at 10:30"},
        {"start": 1, "end": 2, "text": f"{'long ' * 9}words: yes"},
        {"start": 2, "end": 3, "text": "Dr. Green: yes: no"},
    ]
    found = read_captions(write(tmp_path, "a.json", json.dumps(segments)))
    assert [(c.speaker, c.text) for c in found] == [
        ("", "at 10:30"),
        ("", f"{'long ' * 9}words: yes"),
        ("Dr. Green", "yes: no"),
    ]


def test_two_speakers_in_one_caption_are_reported(tmp_path, caplog):
    text = "1\n00:00:03,000 --> 00:00:04,000\n- No.\n- Why?\n\n2\n00:00:05,000 --> 00:00:06,000\nNo - why?\n\n"
    assert [caption.text for caption in read_captions(write(tmp_path, "a.srt", text))] == ["- No. - Why?", "No - why?"]
    assert caplog.messages == ["warning: two speakers share the caption at 3 s: '- No. - Why?': divide it"]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.srt", "hello", "is no srt file"),
        ("a.vtt", "hello", "is no vtt file"),
        ("a.TextGrid", "hello", "is no TextGrid"),
        ("a.json", "hello", "is no JSON"),
        ("a.json", "[1]", "expected a list of segments"),
        ("a.json", '[{"start": "0", "end": 1, "text": "x"}]', "start '0': expected a number of seconds"),
        ("a.json", '[{"start": 0, "end": 1, "text": 3}]', "text 3: expected text"),
        ("a.json", '[{"start": 2, "end": 1, "text": "x"}]', "'x' starts at 2 s and ends at 1 s"),
        ("a.json", "[]", "has no captions"),
        ("a.vtt", "WEBVTT\n\n", "has no captions"),
        ("a.txt", "hello", "expected a transcript that ends in .srt, .vtt"),
    ],
    ids=lambda value: None if len(value) > 20 else value,
)
def test_a_file_that_is_no_transcript_gets_one_line(tmp_path, name, text, line):
    with pytest.raises(UserError, match=line):
        read_captions(write(tmp_path, name, text))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*a\.srt: No such file"):
        read_captions(tmp_path / "a.srt")
    (tmp_path / "b.srt").write_bytes(b"\xff\xfe1")
    with pytest.raises(UserError, match=r"b\.srt is not in UTF-8 \(byte 0\)"):
        read_captions(tmp_path / "b.srt")


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "srt", None)
    with pytest.raises(
        UserError, match=r"the package srt is needed and not installed .*pip install 'jmer\[subtitles\]'"
    ):
        read_captions(write(tmp_path, "a.srt", SRT))


def test_diarisations_are_read(tmp_path):
    turns = [SpeakerTurn(0.0, 2.7, "ann"), SpeakerTurn(2.7, 4.7, "ben")]
    assert read_speaker_turns(write(tmp_path, "a.rttm", RTTM)) == turns
    listed = [{"start": turn.start, "end": turn.end, "speaker": turn.speaker} for turn in turns]
    assert read_speaker_turns(write(tmp_path, "a.json", json.dumps(listed))) == turns


@pytest.mark.parametrize("text", ["", "SPEAKER a 1 x 2 <NA> <NA> ann", "SPEAKER a"])
def test_a_file_that_is_no_diarisation_gets_one_line(tmp_path, text):
    with pytest.raises(UserError, match=r"a\.rttm(, line 1: expected SPEAKER| has no speakers)"):
        read_speaker_turns(write(tmp_path, "a.rttm", text))


def test_the_speaker_of_a_caption_is_the_one_who_speaks_longest_during_it():
    turns = [SpeakerTurn(0, 2, "ann"), SpeakerTurn(2, 2.9, "ben"), SpeakerTurn(2.9, 4, "ann")]
    captions = [Caption(0, 1, "a"), Caption(1.9, 2.8, "b", "x"), Caption(1, 4, "c"), Caption(5, 6, "d", "y")]
    assert [caption.speaker for caption in assign_speakers(captions, turns)] == ["ann", "ben", "ann", "y"]


def test_a_recording_takes_the_files_beside_it(tmp_path):
    write(tmp_path, "talk[1].srt", SRT)
    write(tmp_path, "talk[1].rttm", "SPEAKER a 1 0.5 3 <NA> <NA> zoe <NA> <NA>\n")
    write(tmp_path, "talk1.srt", "")
    recording = tmp_path / "talk[1].MP4"
    recording.write_bytes(b"")
    first, second = rows_of(recording)
    assert (first.conversation, first.speaker, first.transcript) == ("talk[1]", "zoe", "Hi there you")
    assert (first.file, first.start, first.end) == (recording.resolve(), 1.0, 2.5)
    assert (second.speaker, second.transcript) == ("Note", "this is 10:30")


def test_subtitles_alone_are_a_dialogue_with_times(tmp_path):
    first, _ = rows_of(write(tmp_path, "a.srt", SRT))
    assert (first.file, first.start, first.end, first.speaker) == (None, 1.0, 2.5, "Ann")


def test_a_file_of_json_is_a_dialogue_unless_it_has_times(tmp_path):
    rows = rows_of(write(tmp_path, "a.json", '[{"speaker": "Ann", "text": "Hi"}, "No"]'))
    assert [(row.speaker, row.transcript, row.start) for row in rows] == [("Ann", "Hi", None), ("speaker", "No", None)]
    (first, _) = rows_of(write(tmp_path, "b.json", json.dumps(SEGMENTS)))
    assert (first.speaker, first.transcript, first.start) == ("S1", "hello", 0.5)
    for text in ("{", "3", '"x"', "[]", '{"segments": 3}', "[" * 100_000):
        with pytest.raises(UserError, match=r"c\.json"):
            rows_of(write(tmp_path, "c.json", text))


def test_other_sources_get_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no file .*x\.mp4: give a manifest, a recording, subtitles, or a corpus"):
        rows_of(tmp_path / "x.mp4")
    with pytest.raises(UserError, match="is a folder, and no corpus"):
        rows_of(tmp_path)
    with pytest.raises(
        UserError, match=r"give --subtitles FILE, or put x\.srt, x\.vtt, x\.textgrid, x\.json beside it"
    ):
        rows_of(write(tmp_path, "x.mp4", ""))


@pytest.mark.parametrize(
    "text",
    ['["Hi", "No"]', '[{"text": "Hi"}, {"transcript": "No"}]', '{"text": "Hi"}\n\n"No"\n'],
    ids=["strings", "objects", "lines"],
)
def test_a_dialogue_is_json(text):
    rows = rows_of_json(text)
    assert [(row.conversation, row.speaker, row.transcript) for row in rows] == [
        ("dialogue", "speaker", "Hi"),
        ("dialogue", "speaker", "No"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the input is empty: expected a dialogue as JSON"),
        ("[1]", "utterance 1 is 1: expected text, or an object with speaker and transcript"),
        ('{"text": "a"}\n{', "line 2 of the input is no JSON"),
        ("[" * 100_000, "too many brackets"),
        ('[{"text": "a", "mood": "x"}]', "utterance 1: unknown column 'mood'"),
        ('[{"speaker": "a"}]', "utterance 1: has neither a transcript nor a file"),
        ("[]", "has no rows"),
    ],
    ids=["empty", "number", "cut", "deep", "field", "no text", "none"],
)
def test_anything_else_is_no_dialogue(text, line):
    with pytest.raises(UserError, match=line):
        rows_of_json(text)
