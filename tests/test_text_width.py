"""Columns of a terminal: wide characters, emoji and accents."""

import pytest
from names import KEPT

from jmer.text_width import fitted, text_width

WIDTHS = {
    "Zoë": 3,
    "Zoe\u0301": 3,
    "日本語": 6,
    "ｱｲｳ": 3,
    "ＡＢ": 4,
    "한글": 4,
    "\u1112\u1161\u11ab": 2,
    "עברית": 5,
    "مرحبا\u200f": 5,
    "नमस्ते": 4,
    "👍": 2,
    "👍🏽": 2,
    "👩‍👩‍👧": 2,
    "👩‍👩‍👧👩‍👩‍👧": 4,
    "🇩🇪": 2,
    "🇩🇪🇫🇷": 4,
    "❤": 1,
    "❤️": 2,
    "1️⃣": 2,
    "": 0,
    "\u0301": 0,
}


@pytest.mark.parametrize("text", WIDTHS, ids=ascii)
def test_widths_are_those_that_terminals_give(text):
    assert text_width(text) == WIDTHS[text]


@pytest.mark.parametrize("text", [*WIDTHS, *KEPT], ids=lambda text: ascii(text)[:40])
def test_a_fitted_text_has_its_width_and_begins_as_the_text_does(text):
    for width in (3, 5, 30):
        for ellipsis in ("…", "..."):
            found = fitted(text, width, ellipsis)
            assert text_width(found) == width
            if text_width(text) <= width:
                assert found == text + " " * (width - text_width(text))
            else:
                kept, cut, _ = found.rpartition(ellipsis)
                assert cut and text.startswith(kept) and kept != text


def test_a_joined_emoji_is_kept_whole_or_not_at_all():
    assert fitted("ab👩‍👩‍👧cd", 4) == "ab… "
    assert fitted("ab👩‍👩‍👧cd", 5) == "ab👩‍👩‍👧…"
    assert fitted("abcdZoe\u0301s", 5) == "abcd…"
    assert fitted("Zoe\u0301s", 3) == "Zo…"
