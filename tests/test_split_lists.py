"""Each list of conversations becomes the split that it is, or is refused with the flag that says which it is."""

import itertools

import pytest

from jmer.data.readers import split_lists
from jmer.errors import UserError


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("tr_{}", "va_{}", "te_{}"), ("train_{}", "dev_{}", "test_{}"), ("tr{}", "va{}", "te{}")],
)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_keys_that_name_their_split_decide(tmp_path, train, validation, test, order):
    lists = [[form.format(i) for i in range(3)] for form in (train, validation, test)]
    division = split_lists.divide(tmp_path, [lists[i] for i in order], ("train", "test", "validation"), None)
    assert division.splits == dict(zip(("train", "validation", "test"), lists, strict=True))


SESSIONS = (
    [f"Ses0{1 + i % 4}F_{i}" for i in range(12)],
    [f"Ses0{1 + i % 4}M_{i}" for i in range(3)],
    ["Ses05M_1", "Ses05F_2"],
)
SCENES = [[f"{split}_1_{i}" for i in range(n)] for split, n in ((1, 659), (2, 89), (3, 79))]
NUMBERS = [*range(1039)], [*range(1039, 1153)], [*range(1153, 1433)]


@pytest.mark.parametrize("lists", [SESSIONS, SCENES, NUMBERS], ids=["IEMOCAP", "EmoryNLP", "MELD"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_published_division_decides_where_none_is_documented(tmp_path, lists, order):
    division = split_lists.divide(tmp_path, [lists[i] for i in order], ("train", "test"), None)
    assert division.splits == dict(zip(("train", "validation", "test"), lists, strict=True))


@pytest.mark.parametrize("lists", [SESSIONS, SCENES, NUMBERS], ids=["IEMOCAP", "EmoryNLP", "MELD"])
def test_a_published_division_that_contradicts_the_documented_order_is_refused(tmp_path, lists):
    documented = ("train", "test", "validation")
    division = split_lists.divide(tmp_path, [lists[0], lists[2], lists[1]], documented, None)
    assert list(division.splits.values()) == [*lists]
    with pytest.raises(UserError, match="nothing that tells which split each is"):
        split_lists.divide(tmp_path, lists, documented, None)
    assert list(split_lists.divide(tmp_path, lists, documented, ("train", "validation", "test")).splits.values()) == [
        *lists
    ]


@pytest.mark.parametrize(
    ("lists", "documented"),
    [
        ([["a", "b"]], ("train", "test")),
        ([["a"], ["b", "c"]], ("train", "test")),
        ([["Ses05F_1"], ["Ses01F_1", "Ses02F_1"]], ("train", "test")),
        ([["Ses01F_1", "Ses05F_1"], ["Ses02F_1"], ["Ses05F_2"]], ("train", "test")),
        ([["a", "b", "c"], ["d"], ["e"], ["f"]], ("train", "test", "validation")),
    ],
)
def test_lists_that_nothing_tells_are_refused(tmp_path, lists, documented):
    with pytest.raises(UserError, match=rf"has {len(lists)} lists of conversations, of .* for example --splits train"):
        split_lists.divide(tmp_path, lists, documented, None)


def test_lists_that_overlap(tmp_path):
    def divide(*lists):
        return split_lists.divide(tmp_path / "a.pkl", lists, (), ("train", "validation", "test"))

    contained = divide(["a", "b", "c"], ["b"], ["d"])
    assert contained.splits == {"train": ["a", "c"], "validation": ["b"], "test": ["d"]}
    assert contained.note == " Validation: 1 conversations that the file also lists under training."
    for lists in (["ab", "bc", "d"], ["abc", "d", "c"], ["ab", "c", "c"], ["ab", "ab", "c"]):
        with pytest.raises(UserError, match=r"a.pkl: .* have . conversations in common, for example '.': say what the"):
            divide(*lists)
