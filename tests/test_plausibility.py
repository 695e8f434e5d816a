"""Merged conversations and repeated utterances look suspicious; the shapes of the public corpora do not."""

import numpy as np
import pytest

from jmer.data.corpus import Conversation
from jmer.data.plausibility import suspicions


def conversation(name, utterances):
    count = len(utterances)
    return Conversation(name, utterances, ["A"] * count, np.zeros(count, np.int32), {}, {}, [""] * count)


def numbered(lengths):
    return [conversation(f"c{i}", [str(n) for n in range(length)]) for i, length in enumerate(lengths)]


def named(lengths):
    return [conversation(f"c{i}", [f"c{i}_{n}" for n in range(length)]) for i, length in enumerate(lengths)]


@pytest.mark.parametrize("make", [numbered, named])
@pytest.mark.parametrize("lengths", [[110, 8, 50] * 40, [33, 1, 10] * 300, [35, 2] * 400, [98, 30] * 40, [3, 3]])
def test_the_shapes_of_public_corpora_are_plausible(make, lengths):
    third = len(lengths) // 3
    assert suspicions({"train": make(lengths)[third:], "test": make(lengths)[:third]}) == []


def test_a_conversation_far_longer_than_those_of_public_corpora_is_suspicious():
    assert suspicions({"train": numbered([200])}) == []
    (line,) = suspicions({"train": numbered([40, 480, 201]), "test": numbered([20])})
    assert "2 of 4 conversations have more than 200 utterances, 'c1' of train 480" in line
    assert "--conversation A,B,C" in line


def test_an_utterance_in_two_conversations_is_suspicious_if_ids_are_unique_otherwise():
    splits = {"train": named([12] * 12), "test": [conversation("again", ["c3_1", "x1", "c3_2"])]}
    (line,) = suspicions(splits)
    assert "2 ids of utterances occur in several conversations though" in line
    assert "'c3_1' in 'c3' of train and 'again' of test" in line
