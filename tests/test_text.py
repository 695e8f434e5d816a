"""What a name may be, what a transcript becomes, and what a terminal gets."""

import pytest
from names import KEPT

from jmer.text import LONGEST_NAME, name_fault, printable, storable

REFUSED = {
    "a\rb": r"U\+000D, a control character: rename it",
    "a\n": r"U\+000A, a control character",
    "\ta": r"U\+0009, a control character",
    "\x00": r"U\+0000, a control character",
    "\x1b[2J": r"U\+001B, a control character",
    "\x7f": r"U\+007F, a control character",
    "a\x85b": r"U\+0085, a control character",
    "a\u2028b": r"U\+2028, a control character",
    "a\u2029b": r"U\+2029, a control character",
    "a\ud800": r"U\+D800, half of a character, which UTF-8 cannot hold",
    "\udffe": r"U\+DFFE, half of a character",
    "\udcff.csv": r"U\+DCFF, half of a character",
    "x" * (LONGEST_NAME + 1): "has 1001 characters: names have at most 1000",
}


@pytest.mark.parametrize("name", KEPT)
def test_a_name_that_can_be_written_and_read_is_one(name):
    assert name_fault(name) is None


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_that_would_not_come_back_is_refused(name):
    with pytest.raises(ValueError, match=REFUSED[name]):
        raise ValueError(name_fault(name))


@pytest.mark.parametrize(("value", "kind"), [(7, "int"), (None, "NoneType"), (b"a", "bytes"), (["a"], "list")])
def test_a_name_is_a_string(value, kind):
    assert name_fault(value) == f"is of type {kind}: expected a string"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("one\ntwo\r\nthree\tfour\r", "one\ntwo\r\nthree\tfour\r"),
        ("a\ud800b\udfff", "a\ufffdb\ufffd"),
        ("\x00\x1b[2J\x7f", "\ufffd\ufffd[2J\ufffd"),
        ("it\x92s \u2028 👍 עברית", "it\x92s \u2028 👍 עברית"),
    ],
)
def test_a_transcript_keeps_what_can_be_stored(text, stored):
    assert storable(text) == stored
    assert storable(text).encode("utf-8").decode("utf-8") == stored


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nerror: b\r", r"a\nerror: b\r"),
        ("\x9b2J\x00\t", r"\x9b2J\x00\t"),
        ("\ud800\u2028\u202e\u2066", r"\ud800\u2028\u202e\u2066"),
        ("Zoë 日本 عربي 👍 \\n", "Zoë 日本 عربي 👍 \\n"),
    ],
)
def test_a_terminal_gets_one_line_without_control_characters(text, shown):
    assert printable(text) == shown
