"""What is written of predictions comes back from all its files, or nothing is written."""

import base64
import dataclasses
import hashlib
import html
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from example_report import HOSTILE
from names import KEPT
from pages import Page
from predicted import CARD, CONVERSATIONS, EMOTIONS, ODD, TIMES, conversation, labelled, predicted

from jmer.errors import UserError
from jmer.evaluation.colours import emotion_colours
from jmer.evaluation.prediction_files import write_prediction_files
from jmer.evaluation.predictions import prediction_table, read_predictions
from jmer.evaluation.subtitles import Span, Utterance, captions
from jmer.text import storable

srt = pytest.importorskip("srt", reason="needs srt (pip install -e '.[test]')")
webvtt = pytest.importorskip("webvtt", reason="needs webvtt-py (pip install -e '.[test]')")

FOUND = predicted()
CLASSES = ["neutral", "_1", "sad", "_3", "_4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of predictions of all odd kinds."""
    made = tmp_path_factory.mktemp("written") / "new" / "out"
    paths = write_prediction_files(made, FOUND, CARD, {"run": f"runs/a {HOSTILE}"})
    there = {path for path in made.rglob("*") if path.is_file()}
    assert there == set(paths) and len(paths) == 3 + 2 * 2
    return made


def one_line(text):
    return " ".join(storable(text).split())


def every_utterance():
    """Yields conversation, its number, and the number of the utterance."""
    for i, c in enumerate(CONVERSATIONS):
        for j in range(len(c)):
            yield c, i, j


# Tables.


def test_the_table_begins_as_it_always_does_and_adds_times_and_transcripts(folder):
    table, found = read_predictions(folder / "predictions.csv"), FOUND.predictions
    expected = prediction_table(CONVERSATIONS, CARD, found.probabilities, found.weights, found.attention, found.spread)
    columns = list(expected)
    assert list(table) == [*columns, "start", "end", "transcript"]
    assert columns[-len(EMOTIONS) - 1 :] == ["agreement", *(f"sd_{emotion}" for emotion in EMOTIONS)]
    pd.testing.assert_frame_equal(table[columns], expected, check_dtype=False, rtol=1e-6)
    spans = [span for spans in TIMES for span in spans]
    np.testing.assert_array_equal(table["start"], [np.nan if s is None else s.start for s in spans])
    np.testing.assert_array_equal(table["end"], [np.nan if s is None or s.end is None else s.end for s in spans])
    assert list(table["transcript"]) == [" ".join(text.split()) for c in CONVERSATIONS for text in c.sentences]
    assert len((folder / "predictions.csv").read_bytes().split(b"\n")) == len(table) + 2


@pytest.mark.parametrize("times", [None, [[None] * len(c) for c in CONVERSATIONS]], ids=["none", "all unknown"])
def test_without_times_transcripts_or_members_there_are_no_such_columns(tmp_path, times):
    bare = [dataclasses.replace(c, sentences=[""] * len(c)) for c in CONVERSATIONS]
    paths = write_prediction_files(tmp_path / "out", predicted(bare, times, members=1), CARD)
    assert [path.name for path in paths] == ["predictions.csv", "predictions.jsonl", "predictions.html"]
    table = read_predictions(paths[0])
    assert [c for c in table if re.match("start|end|transcript|agreement|sd_", c)] == []
    fields = json.loads(paths[1].read_text(encoding="utf-8").split("\n")[0])
    assert fields["start"] is fields["end"] is fields["transcript"] is None
    assert not {"agreement", "deviations"} & fields.keys()
    assert "agreement" not in Page(paths[2].read_text(encoding="utf-8")).text


# Lines of JSON.


@pytest.mark.parametrize("split", [lambda text: text.split("\n")[:-1], str.splitlines], ids=["line feeds", "any break"])
def test_each_line_of_json_is_an_utterance(folder, split):
    lines = split((folder / "predictions.jsonl").read_text(encoding="utf-8"))
    found = FOUND.predictions
    for fields, (c, i, j) in zip(map(json.loads, lines), every_utterance(), strict=True):
        names = (c.id, c.utterances[j], c.speakers[j], c.sentences[j] or None)
        assert tuple(fields[n] for n in ("conversation", "utterance", "speaker", "transcript")) == names
        span = TIMES[i][j]
        assert (fields["start"], fields["end"]) == ((None, None) if span is None else (span.start, span.end))
        values = found.probabilities[i][j]
        assert (fields["gold"], fields["predicted"]) == (None, EMOTIONS[values.argmax()])
        assert list(fields["probabilities"]) == list(fields["deviations"]) == list(EMOTIONS)
        assert np.float32(fields["probability"]) == values.max()
        # Bit for bit.
        np.testing.assert_array_equal(np.float32(list(fields["probabilities"].values())), values)
        np.testing.assert_array_equal(np.float32(list(fields["deviations"].values())), found.spread.deviations[i][j])
        assert np.float32(fields["agreement"]) == found.spread.agreement[i][j]
        weights = {m: np.float32(w[i][j]) if c.available[m][j] else None for m, w in found.weights.items()}
        assert fields["weights"] == {m: None if w is None else float(str(w)) for m, w in weights.items()}
        assert np.float32(fields["attention"]["atmosphere"]) == found.attention["atmosphere"][i][j]


def test_a_gold_label_is_written(tmp_path):
    paths = write_prediction_files(tmp_path / "out", labelled(), CARD)
    fields = [json.loads(line) for line in paths[1].read_text(encoding="utf-8").splitlines()]
    assert [one["gold"] for one in fields[:2]] == ["sad", None]
    assert list(read_predictions(paths[0])["gold"][:2]) == ["sad", ""]


# Subtitles.


def expected_lines(c, i, j):
    """Lines of an utterance's caption."""
    values = FOUND.predictions.probabilities[i][j]
    label = f"{EMOTIONS[values.argmax()]} {100 * values.max():.0f} %"
    said, speaker = one_line(c.sentences[j]), one_line(c.speakers[j])
    lines = [said, label] if said else [label]
    return [f"{speaker}: {lines[0]}" if speaker else lines[0], *lines[1:]]


def expected_captions(number):
    """Start, end, emotion and lines of each caption of a conversation, in order."""
    c = CONVERSATIONS[number]
    for j, span in enumerate(TIMES[number]):
        if span is not None:
            # The next utterance begins two seconds later; after the last one, ten seconds are shown.
            end = span.end or span.start + (10 if j == len(c) - 1 else 2)
            emotion = FOUND.predictions.probabilities[number][j].argmax()
            yield span.start, end, emotion, expected_lines(c, number, j)


@pytest.mark.parametrize(("number", "name"), [(0, "dia_0_é_"), (1, "日本")])
def test_subrip_comes_back(folder, number, name):
    source = (folder / "subtitles" / f"{name}.srt").read_text(encoding="utf-8")
    shown, colours = list(srt.parse(source)), emotion_colours(EMOTIONS)
    assert [caption.index for caption in shown] == list(range(1, len(shown) + 1))
    for caption, (start, end, emotion, lines) in zip(shown, expected_captions(number), strict=True):
        assert (caption.start.total_seconds(), caption.end.total_seconds()) == pytest.approx((start, end))
        colour, text = re.fullmatch(r'<font color="(.*?)">(.*)</font>', caption.content, re.DOTALL).groups()
        assert colour == colours[emotion].on_dark
        assert not set("<>{}") & set(text)
        assert text.split("\n") == [line.translate(str.maketrans("<>{}", "‹›()")) for line in lines]


@pytest.mark.parametrize(("number", "name"), [(0, "dia_0_é_"), (1, "日本")])
def test_webvtt_comes_back(folder, number, name):
    path = folder / "subtitles" / f"{name}.vtt"
    found = webvtt.read(path)
    for caption, (start, end, emotion, lines) in zip(found, expected_captions(number), strict=True):
        assert (caption.start_in_seconds, caption.end_in_seconds) == (int(start), int(end))
        assert [f"{start % 60:06.3f}", f"{end % 60:06.3f}"] == [caption.start[-6:], caption.end[-6:]]
        shown, text = re.fullmatch(r"(?:<v [^>]+>)?<c\.(\w+)>(.*)</c>(?:</v>)?", caption.raw_text, re.DOTALL).groups()
        assert shown == CLASSES[emotion]
        assert not set("<>") & set(text)
        assert html.unescape(text).split("\n") == lines
    (style,) = found.styles
    rules = re.findall(r"::cue\(\.(\w+)\) \{ color: (#[0-9a-f]{6}) \}", style.text)
    assert rules == list(zip(CLASSES, [colour.on_dark for colour in emotion_colours(EMOTIONS)], strict=True))


def test_voices_of_webvtt_are_the_speakers(folder):
    for number, name in enumerate(("dia_0_é_", "日本")):
        there = [j for j, span in enumerate(TIMES[number]) if span]
        voices = [html.unescape(c.voice or "") for c in webvtt.read(folder / "subtitles" / f"{name}.vtt")]
        assert voices == [one_line(CONVERSATIONS[number].speakers[j]) for j in there]


def utterance(start, end=None):
    return Utterance(Span(start, end), "Ann", "", 0, 1.0)


def test_an_unknown_end_is_the_next_start_or_ten_seconds_later():
    def times(*spans):
        return [(caption.start, caption.end) for caption in captions([utterance(*span) for span in spans])]

    assert times((0.0, None), (3.5, None), (20.0, 21.0)) == [(0, 3500), (3500, 13500), (20000, 21000)]
    # In the order of the starts; two that begin together end together.
    assert times((5.0, 6.0), (1.0, None), (1.0, None)) == [(1000, 5000), (1000, 5000), (5000, 6000)]
    # Never empty, however short; an end is kept though another one speaks meanwhile.
    assert times((1.0, 1.0001), (0.0, 9.0)) == [(0, 9000), (1000, 1001)]


def test_there_is_a_file_for_each_recording(tmp_path):
    talks = [conversation(name, ["Ann", "Bob"], ["one", "two"]) for name in ("a", "b", "c")]
    times = [
        [Span(0.0, 1.0, "rec/long.mp4"), Span(1.0, 2.0, "rec/long.mp4")],
        [Span(5.0, 6.0, "rec/long.mp4"), Span(0.0, None, "other/long.mp4")],
        [None, Span(7.0, 8.0)],
    ]
    write_prediction_files(tmp_path / "out", predicted(talks, times), CARD)
    counts = {p.name: len(list(srt.parse(p.read_text()))) for p in (tmp_path / "out" / "subtitles").glob("*.srt")}
    assert counts == {"long.srt": 3, "long-2.srt": 1, "c.srt": 1}
    assert sorted(p.stem for p in (tmp_path / "out" / "subtitles").glob("*.vtt")) == ["c", "long", "long-2"]


def test_hours_have_as_many_digits_as_they_need(tmp_path):
    talk = [conversation("a", ["Ann"], ["late"])]
    write_prediction_files(tmp_path / "out", predicted(talk, [[Span(360000.5, 360001.9996)]]), CARD)
    (shown,) = webvtt.read(tmp_path / "out" / "subtitles" / "a.vtt")
    assert (shown.start, shown.end) == ("100:00:00.500", "100:00:02.000")


# The page.


@pytest.fixture(scope="module")
def source(folder):
    return (folder / "predictions.html").read_text(encoding="utf-8")


def test_the_page_has_the_predictions(source):
    page, found = Page(source), FOUND.predictions
    assert page.text.count("Predictions for talk") == 2
    assert f"{len(ODD) + len(KEPT)} utterances in 2 conversations" in page.text
    shown = page.data["splits"][""]
    assert page.data["emotions"] == list(EMOTIONS) and list(page.data["splits"]) == [""]
    for i, (fields, c) in enumerate(zip(shown, CONVERSATIONS, strict=True)):
        assert fields["id"] == c.id and fields["sentences"] == c.sentences and fields["speakers"] == c.speakers
        np.testing.assert_allclose(fields["probabilities"], found.probabilities[i], atol=5.1e-5)
        np.testing.assert_allclose(fields["deviations"], found.spread.deviations[i], atol=5.1e-5)
        np.testing.assert_allclose(fields["agreement"], found.spread.agreement[i], atol=5.1e-5)
        assert fields["times"] == [None if span is None else [span.start, span.end] for span in TIMES[i]]


def test_the_page_counts_the_emotions_and_links_to_their_utterances(source):
    counts = np.bincount(np.concatenate(FOUND.predictions.probabilities).argmax(1), minlength=len(EMOTIONS))
    links = re.findall(r'<a href="#split=&amp;filter=predicted-(\d)">(\d+)</a>', source)
    assert links == [(str(i), str(count)) for i, count in enumerate(counts) if count]


def test_with_gold_labels_the_counts_are_no_links(tmp_path):
    write_prediction_files(tmp_path / "out", labelled(), CARD)
    assert "filter=predicted-0" not in (tmp_path / "out" / "predictions.html").read_text(encoding="utf-8")


def test_the_page_runs_its_own_script_only_and_refers_to_nothing(source):
    page = Page(source)
    policy = next(tag["content"] for tag in page.named("meta") if "http-equiv" in tag)
    script = next(text for text in page.scripts if text.startswith('"use strict"'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert len(page.named("script")) == 2
    for _, attributes in page.tags:
        assert "src" not in attributes and attributes.get("href", "#").startswith(("#", "data:,"))
    assert not re.search(r"https?:|//\w+\.|@import|url\(", source)
    assert HOSTILE not in source
    assert {name for name, _ in page.tags} & {"img", "b", "i"} == set()


# One folder, whole or not there.


def test_a_folder_that_is_not_empty_is_refused_and_an_empty_one_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    write_prediction_files(tmp_path / "empty", FOUND, CARD)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for taken in (tmp_path / "empty", tmp_path / "empty" / "predictions.csv"):
        with pytest.raises(UserError, match=f"^{re.escape(str(taken))} already exists: give a new folder for the pred"):
            write_prediction_files(taken, FOUND, CARD)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("at", range(7))
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, at):
    write, written = type(tmp_path).write_text, []

    def failing(path, *args, **options):
        written.append(path)
        if len(written) > at:
            raise OSError(28, "No space left on device")
        return write(path, *args, **options)

    monkeypatch.setattr("pathlib.Path.write_text", failing)
    with pytest.raises(UserError, match=r"^cannot write .*out \(No space left on device\): free the disk"):
        write_prediction_files(tmp_path / "out", FOUND, CARD)
    assert len(written) == at + 1 and list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_one_line(tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "file").write_text("")
        target, message = tmp_path / "file" / "out", "cannot write .*out"
    else:
        tmp_path.chmod(0o500)
        target, message = tmp_path / "out", "Permission denied"
    with pytest.raises(UserError, match=message):
        write_prediction_files(target, FOUND, CARD)


def nan(split):
    """The predictions with one probability that is not a number."""
    values = [array.copy() for array in split.predictions.probabilities]
    values[1][0, 0] = np.nan
    return dataclasses.replace(split, predictions=dataclasses.replace(split.predictions, probabilities=values))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: nan(FOUND), "conversation '日本': probabilities are not finite: use an earlier checkpoint"),
        (lambda: dataclasses.replace(FOUND, times=TIMES[:1]), "the times do not fit the conversations: give one per"),
        (lambda: dataclasses.replace(FOUND, times=TIMES[::-1]), "the times do not fit the conversations: give one per"),
    ],
)
def test_what_does_not_fit_writes_nothing(tmp_path, wrong, message):
    with pytest.raises(UserError, match=f"^{message}"):
        write_prediction_files(tmp_path / "out", wrong(), CARD)
    assert list(tmp_path.iterdir()) == []
