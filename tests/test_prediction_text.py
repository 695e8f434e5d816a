"""Tables for a terminal: aligned, as wide as it is, whatever names and transcripts contain."""

import dataclasses
import io

import numpy as np
import pytest
from predicted import EMOTIONS, conversation, predicted

from jmer.command import show
from jmer.evaluation.forward import Predictions
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.evaluation.prediction_text import prediction_text
from jmer.evaluation.spread import Spread
from jmer.text_width import text_width

TALK = PredictedSplit(
    [conversation("talk", ["Ann", "李雷", "Ann"], ["Did you\nsleep well?", "你好吗？ 👩‍👩‍👧", ""])],
    Predictions([np.array([[0.62, 0.3, 0.08], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]], np.float32)], {}, {}),
)
THREE = ("joy", "sad", "neutral")
TABLE = """\
talk (3 utterances)
speaker  transcript           emotion    %  next   %
Ann      Did you sleep well?  joy       62  sad   30
李雷     你好吗？ 👩‍👩‍👧          neutral   50  joy   25
Ann                           neutral  100  joy    0"""
ENSEMBLE = """\
talk (3 utterances)
speaker  transcript           emotion    %  next   %  agree
Ann      Did you sleep well?  joy       62  sad   30   67 %
李雷     你好吗？ 👩‍👩‍👧          neutral   50  joy   25  100 %
Ann                           neutral  100  joy    0    0 %"""


def test_a_table_has_what_is_said_and_the_two_likeliest_emotions():
    assert prediction_text(TALK, THREE, 80) == TABLE


def test_an_ensembles_table_has_the_agreement_of_its_members():
    spread = Spread([np.zeros((3, 3), np.float32)], [np.array([2 / 3, 1, 0], np.float32)])
    ensemble = dataclasses.replace(TALK, predictions=dataclasses.replace(TALK.predictions, spread=spread))
    assert prediction_text(ensemble, THREE, 80) == ENSEMBLE


def test_a_single_emotion_has_no_next_one():
    one = PredictedSplit([conversation("a", ["Ann"], ["Hi"])], Predictions([np.ones((1, 1), np.float32)], {}, {}))
    assert prediction_text(one, ("calm",), 80).split("\n") == [
        "a (1 utterance)",
        "speaker  transcript  emotion    %  next  %",
        "Ann      Hi          calm     100",
    ]


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize("members", [1, 2])
def test_no_line_is_wider_than_the_terminal_and_columns_are_aligned(width, members):
    for table in prediction_text(predicted(members=members), EMOTIONS, width).split("\n\n"):
        title, *lines = table.split("\n")
        widths = list(map(text_width, [title, *lines]))
        assert max(widths) <= max(width, 60)
        # All end with a number, which is aligned right.
        assert len(set(widths[1:])) == 1


def test_a_long_transcript_is_cut_and_uses_the_whole_width():
    long = PredictedSplit(
        [conversation("x" * 300, ["Ann"], ["What did you say? " * 50])],
        Predictions([np.array([[0.6, 0.3, 0.1]], np.float32)], {}, {}),
    )
    title, header, line = prediction_text(long, THREE, 100).split("\n")
    assert title == "x" * 85 + "… (1 utterance)" and len(title) == 100
    assert len(header) == len(line) == 100
    assert "What did you say? What" in line and "…  joy" in line


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_tables_are_aligned_as_they_are_shown(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    text = prediction_text(predicted(), EMOTIONS, 80, encoding)
    show(text, stream)
    shown = stream.buffer.getvalue().decode(encoding)
    assert shown == f"{text}\n" and "\x1b" not in shown
    for table in shown.removesuffix("\n").split("\n\n"):
        assert len({text_width(line) for line in table.split("\n")[1:]}) == 1
