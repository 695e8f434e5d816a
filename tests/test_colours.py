"""Colours of emotions are legible, different, and the usual ones."""

import pytest

from jmer.data.emotions import EMORYNLP, IEMOCAP4, IEMOCAP6, MELD, MELD_SENTIMENTS
from jmer.evaluation.colours import CONTRAST, contrast, emotion_colours

SETS = [IEMOCAP4, IEMOCAP6, MELD, MELD_SENTIMENTS, EMORYNLP, ("a", "b"), tuple("abcdefgh"), ("joy", "happy", "Joy ")]


@pytest.mark.parametrize("emotions", SETS, ids=lambda emotions: emotions[0])
def test_colours_are_legible_and_different(emotions):
    colours = emotion_colours(emotions)
    assert len(colours) == len(emotions)
    # Grounds of the pages, and of a player.
    for on_light, on_dark in colours:
        assert min(contrast(on_light, ground) for ground in ("#ffffff", "#f5f6f7")) >= CONTRAST
        assert min(contrast(on_dark, ground) for ground in ("#000000", "#15181b", "#1f2428")) >= CONTRAST
    first = colours[:7]
    assert len({colour.on_light for colour in first}) == len({colour.on_dark for colour in first}) == len(first)


def test_the_same_emotion_has_the_same_colour_in_all_corpora():
    (joy, sad) = emotion_colours(["joyful", "sad"])
    assert emotion_colours(IEMOCAP4)[:2] == [joy, sad]
    assert emotion_colours(MELD)[3:5] == [sad, joy]
    assert emotion_colours(["x", "neutral"])[1] == ("#000000", "#ffffff")


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#777777") == 1
    # The grey that just fails on white.
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)
