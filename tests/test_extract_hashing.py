"""Text features of hashed character n-grams."""

import binascii
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from jmer.errors import UserError
from jmer.extract.hashing import Hashing
from jmer.extract.protocol import Turn, Words
from jmer.extract.registry import make_extractor


def features(text, **options):
    return Hashing(**options)(Words(Turn("Ann", text)))


def transcribed(words, columns=1024, shortest=2, longest=4):
    """The definition, for words that were separated by hand."""
    counts = Counter()
    for word in words:
        padded = f" {word} "
        pieces = {(start, end) for start in range(len(padded)) for end in range(start + 1, len(padded) + 1)}
        kept = [padded[start:end] for start, end in pieces if shortest <= end - start <= longest]
        counts.update(binascii.crc32(piece.encode("utf-8")) % columns for piece in kept)
    logarithms = {column: math.log(1 + count) for column, count in counts.items()}
    norm = math.sqrt(sum(value**2 for value in logarithms.values()))
    values = np.zeros(columns)
    for column, value in logarithms.items():
        values[column] = value / norm
    return values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Oh my God, really?!", ["oh", "my", "god", ",", "really", "?!"]),
        ("I don't know.", ["i", "don", "'", "t", "know", "."]),
        ("banana banana", ["banana", "banana"]),
        ("...", ["..."]),
        ("😀 😀😀", ["😀", "😀😀"]),
        ("Ça va, 你好", ["ça", "va", ",", "你好"]),
        ("  a\tb\n", ["a", "b"]),
        ("ÉÉ", ["éé"]),
    ],
    ids=["sentence", "apostrophe", "repeated", "punctuation", "emoji", "languages", "blanks", "capitals"],
)
@pytest.mark.parametrize(
    "options",
    [{}, {"columns": 7}, {"shortest": 1, "longest": 1}, {"shortest": 3, "longest": 6}],
    ids=["default", "few_columns", "characters", "longer"],
)
def test_features_are_those_of_the_definition(text, words, options):
    found = features(text, **options)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, transcribed(words, **options), rtol=0, atol=1e-7)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("text", ["", " ", "\u3000\n\t"], ids=["empty", "blank", "blanks"])
def test_a_text_without_words_has_only_zeros(text):
    np.testing.assert_array_equal(features(text), np.zeros(1024))


def test_short_words_have_no_longer_pieces():
    np.testing.assert_array_equal(features("a", shortest=4, longest=4), np.zeros(1024))
    assert np.count_nonzero(features("a", shortest=3, longest=4)) == 1


def test_features_are_the_same_in_every_process():
    program = (
        "from jmer.extract.hashing import Hashing; from jmer.extract.protocol import Turn, Words; "
        "print(Hashing()(Words(Turn('Ann', 'What a day 😀'))).tobytes().hex())"
    )
    for salt in ("1", "2"):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": salt})
        assert bytes.fromhex(done.stdout) == features("What a day 😀").tobytes()


def test_alike_sentences_are_near():
    happy, happier, other = (features(text) for text in ("I am so happy!", "So happy, am I?", "Close the window."))
    assert happy @ happier > 0.6 > 0.2 > happy @ other


def test_neither_who_speaks_nor_what_was_said_before_matters():
    found = Hashing()(Words(Turn("Bob", "Hi"), (Turn("Ann", "Hello?"),)))
    np.testing.assert_array_equal(found, features("Hi"))


def test_it_has_an_identity():
    hashing = make_extractor("hashing:64,longest=3", "text")
    hashing.check()
    assert hashing == Hashing(64, 2, 3) and hashing.width == 64 and not hashing.frames
    assert hashing.identity | {"licence": ""} == {
        "extractor": "hashing",
        "revision": 1,
        "columns": 64,
        "shortest": 2,
        "longest": 3,
        "width": 64,
        "frames": False,
        "packages": {},
        "licence": "",
    }


@pytest.mark.parametrize("options", ["columns=0", "shortest=0", "shortest=3,longest=2"])
def test_wrong_options_are_named(options):
    with pytest.raises(UserError, match="columns must be at least 1, and 1 <= shortest <= longest"):
        make_extractor(f"hashing,{options}", "text")
