"""Conversations are named by the values that identify them, and ids that restart are found by their signs."""

from pathlib import Path

import pytest

from jmer.data.readers.grouping import (
    Places,
    columns_that_tell_apart,
    conversation_names,
    repeated_rows,
    scattered,
    sort_keys,
)
from jmer.errors import UserError


def test_ids_of_several_columns_do_not_collide():
    plain = [("1", "12"), ("11", "2"), ("1", "1")]
    assert conversation_names(plain) == {plain[0]: "1_12", plain[1]: "11_2", plain[2]: "1_1"}
    assert conversation_names([("a_b",), ("c",)]) == {("a_b",): "a_b", ("c",): "c"}
    for keys in (
        [("a_b", "c"), ("a", "b_c")],
        [("a_", "b"), ("a", "_b")],
        [("a\\", "_b"), ("a", "\\_b"), ("a\\_", "b"), ("a", "_b"), ("a_", "b")],
    ):
        assert len(set(conversation_names(keys).values())) == len(keys)


def test_rows_are_numbered_from_one_in_their_file():
    one = Places({Path("a.csv"): 20})
    assert (one.files, one.rows([4]), one.rows([0, 19])) == ("a.csv", "row 5", "rows 1 and 20")
    assert one.rows([0, 1, 2, 3, 4]) == "rows 1, 2, 3 and 2 more"
    two = Places({Path("x/a.csv"): 2, Path("x/b.csv"): 3})
    assert (two.files, two.rows([1, 2, 4])) == ("x/a.csv and 1 more", "rows 2 of a.csv and 1 and 3 of b.csv")
    alike = Places({Path("train/0.csv"): 2, Path("test/0.csv"): 3})
    assert alike.rows([1, 2]) == "rows 2 of train/0.csv and 1 of test/0.csv"
    assert two.rows([0, 1, 2, 3]) == "rows 1 and 2 of a.csv, 1 of b.csv and 1 more"


def test_text_of_numerals_sorts_by_number():
    assert sort_keys(["10", "9", " 9.5 "], "c") == [10, 9, 9.5]
    assert sort_keys(["10", "9", "b"], "c") == ["10", "9", "b"]
    for values in ([1, None], [1.0, float("nan")], [1, "2"]):
        with pytest.raises(UserError, match="conversation 'c': the order has empty cells, or both numbers and text"):
            sort_keys(values, "c")


def test_equal_values_are_found():
    assert repeated_rows([3, 1, 3, 1, 3]) == [0, 2, 4]
    assert repeated_rows([3, 1, 2]) == []


def test_conversations_whose_rows_are_not_contiguous_are_found():
    assert scattered("aabbaacc", sorted_by_order=False) == {"a": [(0, 1), (4, 5)]}
    assert scattered("aabbcc", sorted_by_order=False) == {}
    # An order sorts a shuffled file, in which hardly any two rows of a conversation meet.
    assert scattered("abcbacba", sorted_by_order=True) == {}
    assert list(scattered("abcbacba", sorted_by_order=False)) == ["a", "b", "c"]
    assert list(scattered("aaabbbaaacccaaa", sorted_by_order=True)) == ["a"]


SCENES = [(season, episode, scene) for season in (1, 2) for episode in (1, 2, 3) for scene in (1, 2) for _ in range(3)]
SEASON, EPISODE, SCENE = map(list, zip(*SCENES, strict=True))
TIMES = list(range(36))
WITHIN = [0, 1, 2] * 12


def test_the_fewest_columns_that_tell_conversations_apart_are_found():
    columns = {"time": TIMES, "episode": EPISODE, "place": ["x"] * 36, "season": SEASON}
    assert columns_that_tell_apart(SCENE, WITHIN, columns) == ("episode", "season")
    assert columns_that_tell_apart(SCENE, None, columns) == ("episode", "season")
    first = slice(18)
    assert columns_that_tell_apart(
        SCENE[first], WITHIN[first], {name: values[first] for name, values in columns.items()}
    ) == ("episode",)


def test_no_column_is_proposed_that_only_numbers_utterances_or_does_not_suffice():
    assert columns_that_tell_apart(SCENE, WITHIN, {"time": TIMES}) == ()
    assert columns_that_tell_apart(SCENE, WITHIN, {"season": SEASON}) == ()
    assert columns_that_tell_apart(SCENE, WITHIN, {"mood": ["good", "bad", "bad"] * 12}) == ()
    assert columns_that_tell_apart(SCENE, WITHIN, {}) == ()
