"""Features are computed once, kept under all that they depend on, and never lost by a kill."""

import dataclasses
import os
from typing import ClassVar

import numpy as np
import pytest

from jmer.errors import UserError
from jmer.extract.cache import SUFFIX, Cache, cache_key
from jmer.extract.hashing import Hashing
from jmer.extract.manifest import Row
from jmer.extract.protocol import Missing, Noted, TextExtractor
from jmer.extract.work import extract_features


@dataclasses.dataclass(frozen=True)
class Counting(TextExtractor):
    """The length of an utterance and of what was said before it.

    Attributes:
      turns: how many turns before it are read.
      speakers: whether names are read.
    """

    turns: int = 0
    speakers: bool = False

    name = "counting"
    licence = "none"
    width = 2
    seen: ClassVar[list] = []

    @property
    def context(self):
        return self.turns

    @property
    def reads_speakers(self):
        return self.speakers

    def __call__(self, words):
        self.seen.append(words)
        if words.turn.text == "nan":
            return np.array([np.nan, 0])
        if words.turn.text == "long":
            return Noted(np.array([4, 0]), "texts are long")
        if words.turn.text == "none":
            return Missing("nothing: to count")
        return np.array([len(words.turn.text), sum(len(turn.text) for turn in words.before)])


@pytest.fixture(autouse=True)
def seen():
    Counting.seen.clear()
    return Counting.seen


def rows(*texts, conversation="a"):
    return [Row(f"line {i}", conversation, f"s{i % 2}", text) for i, text in enumerate(texts)]


def run(rows, extractor, cache=None):
    lines = []
    return extract_features(rows, {"text": extractor}, cache, log=lines.append), lines


def test_every_utterance_gets_its_features_and_the_turns_before_it(seen):
    found, _ = run([*rows("a", "bb", "", "ccc", "d"), *rows("ee", conversation="b")], Counting(turns=2))
    values = [one if isinstance(one, Missing) else one.tolist() for one in found.features["text"]]
    assert values == [[1, 0], [2, 1], Missing("no transcript"), [3, 3], [1, 5], [2, 0]]
    assert all(one.dtype == np.float32 for one in found.features["text"] if not isinstance(one, Missing))
    assert [turn.text for turn in seen[-2].before] == ["bb", "ccc"] and not seen[-1].before


def test_a_text_is_computed_once(tmp_path, seen):
    cache = Cache(tmp_path)
    run(rows("hi", "ho", "hi"), Counting(), cache)
    assert len(seen) == 2
    found, lines = run(rows("ho", "hi", "hu"), Counting(), cache)
    assert len(seen) == 3 and "2 of 3 features are in the cache" in lines[0]
    assert [one.tolist() for one in found.features["text"]] == [[2, 0], [2, 0], [2, 0]]


def test_features_are_kept_under_all_that_they_depend_on(tmp_path, seen):
    cache = Cache(tmp_path)
    run(rows("hi", "ho"), Counting(), cache)
    run(rows("hi", "ho"), Counting(turns=1), cache)
    assert len(seen) == 4
    run(rows("hu", "ho"), Counting(turns=1), cache)  # ho follows something else
    assert len(seen) == 6
    run([row for row in rows("x", "hi")][1:], Counting(), cache)  # another speaker, who is not read
    assert len(seen) == 6
    run(rows("hi"), Counting(speakers=True), cache)
    run([dataclasses.replace(rows("hi")[0], speaker="zoe")], Counting(speakers=True), cache)
    assert len(seen) == 8


def test_missing_features_and_their_reason_are_kept_too(tmp_path, seen):
    cache = Cache(tmp_path)
    for _ in range(2):
        found, _ = run(rows("none", "nan"), Counting(), cache)
        assert found.features["text"] == [Missing("nothing: to count"), Missing("features are not finite")]
    assert len(seen) == 2


def test_what_an_extractor_notes_is_counted(tmp_path):
    cache = Cache(tmp_path)
    found, lines = run(rows("hi", "long", "long"), Counting(), cache)
    assert lines[-1] == "1 texts are long"
    assert [one.tolist() for one in found.features["text"]] == [[2, 0], [4, 0], [4, 0]]
    assert not any("long" in line for line in run(rows("hi", "long"), Counting(), cache)[1])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_of_the_cache_is_computed_again(tmp_path, seen, damage):
    cache = Cache(tmp_path)
    expected, _ = run(rows("hi"), Counting(), cache)
    (path,) = tmp_path.rglob(f"*{SUFFIX}")
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    damaged = {"cut": path.read_bytes()[:-9], "flipped": bytes(content), "empty": b"", "other": b"x" * 99}[damage]
    path.write_bytes(damaged)
    found, _ = run(rows("hi"), Counting(), cache)
    assert np.array_equal(found.features["text"][0], expected.features["text"][0])
    assert len(seen) == 2
    run(rows("hi"), Counting(), cache)
    assert len(seen) == 2


def test_whatever_byte_of_a_cached_file_changes_features_do_not(tmp_path):
    cache, key = Cache(tmp_path), cache_key({"extractor": "x"}, turns=["hi"])
    features = np.arange(5, dtype=np.float32)
    cache.save(key, features)
    (path,) = tmp_path.rglob(f"*{SUFFIX}")
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        found = cache.load(key)
        assert found is None or np.array_equal(found, features), position


def test_nothing_but_whole_files_is_left_in_the_cache(tmp_path):
    cache = Cache(tmp_path)
    run(rows("hi", "ho"), Counting(), cache)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {SUFFIX}
    cache.check()
    assert len(list(tmp_path.rglob(f"*{SUFFIX}"))) == 2


def test_a_cache_that_cannot_be_written_gets_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to the cache .*file .*name another \(--cache\)"):
        Cache(tmp_path / "file").check()


def test_a_full_disk_gets_one_line_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*free the disk"):
        Cache(tmp_path).save("ab", np.zeros(3, np.float32))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_key_depends_on_the_identity_but_not_on_its_licence():
    identity = Hashing().identity
    assert cache_key(identity, text="a") == cache_key({**identity, "licence": "other"}, text="a")
    others = [cache_key({**identity, "revision": 2}, text="a"), cache_key(identity, text="b")]
    assert len({cache_key(identity, text="a"), *others}) == 3
