"""The curriculum: difficulties counted by hand, epochs that grow from easy to hard, and a run that follows them."""

import contextlib
import dataclasses
import functools
import itertools
import types

import numpy as np
import pytest
from tiny import SIZES, WIDTHS, linear_config, tiny_config, tiny_corpus, train

from jmer.config import check_config
from jmer.data.batching import batches
from jmer.data.corpus import Conversation
from jmer.data.curriculum import curriculum, difficulty
from jmer.data.packing import steps_per_epoch
from jmer.errors import UserError
from jmer.experiment import get_config
from jmer.training import execution, loop
from jmer.training.metric_writers import JSON_LINES_FILE, read_json_lines


def conversation(speakers, labels, name="c"):
    n = len(labels)
    return Conversation(
        name, [f"{i}" for i in range(n)], list(speakers), np.array(labels, np.int32), {}, {}, sentences=[""] * n
    )


# Speakers, labels, and (shifts + speakers) / (utterances + speakers) counted by hand.
COUNTED = [
    ("A", [2], (0 + 1) / (1 + 1)),
    ("AA", [0, 0], (0 + 1) / (2 + 1)),
    ("AA", [0, 1], (1 + 1) / (2 + 1)),
    ("AB", [0, 1], (0 + 2) / (2 + 2)),
    ("ABABA", [0, 1, 0, 2, 3], (2 + 2) / (5 + 2)),
    ("ABCABC", [0, 0, 0, 1, 1, 1], (3 + 3) / (6 + 3)),
    ("AAAA", [0, 1, 0, 1], (3 + 1) / (4 + 1)),
    # What is unlabelled is skipped: the labelled utterances around it are compared.
    ("AAA", [0, -1, 1], (1 + 1) / (3 + 1)),
    ("AAA", [0, -1, 0], (0 + 1) / (3 + 1)),
    ("AAAB", [-1, 1, -1, -1], (0 + 2) / (4 + 2)),
    ("AB", [-1, -1], (0 + 2) / (2 + 2)),
]


@pytest.mark.parametrize(("speakers", "labels", "expected"), COUNTED)
def test_difficulties_counted_by_hand(speakers, labels, expected):
    assert difficulty(conversation(speakers, labels)) == expected


def made_up(count=11):
    """Conversations of two to twelve utterances, one in five of them unlabelled, by up to three speakers."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 13, count)
    return [conversation(rng.choice(["A", "B", "C"], n), rng.integers(-1, 4, n), str(i)) for i, n in enumerate(lengths)]


@functools.cache
def corpus():
    return tiny_corpus()


def training():
    return corpus().conversations("train")


def transcribed_difficulty(c):
    """One speaker after the other."""
    shifts = 0
    for name in set(c.speakers):
        own = [label for speaker, label in zip(c.speakers, c.labels, strict=True) if speaker == name and label >= 0]
        shifts += sum(one != other for one, other in itertools.pairwise(own))
    speakers = len(set(c.speakers))
    return (shifts + speakers) / (len(c.labels) + speakers)


def transcribed_epoch(conversations, buckets, number):
    """The first `number` of `buckets` equal parts (epochs count from 1), the easiest conversations first."""
    ranked = sorted(range(len(conversations)), key=lambda i: (transcribed_difficulty(conversations[i]), i))
    size, over = divmod(len(ranked), buckets)
    parts = []
    for k in range(buckets):
        parts.append([ranked.pop(0) for _ in range(size + (k < over))])
    return sorted(itertools.chain.from_iterable(parts[: min(number, buckets)]))


@pytest.mark.parametrize("buckets", [1, 2, 3, 5, 11, 15])
def test_epochs_match_a_transcription(buckets):
    conversations = made_up()
    epochs = curriculum(conversations, buckets=buckets, epochs=buckets + 3)
    assert len(epochs) == buckets + 3
    for number, positions in enumerate(epochs, 1):
        assert positions.tolist() == transcribed_epoch(conversations, buckets, number)


def test_epochs_grow_from_easy_to_hard_until_all_is_there():
    conversations = made_up()
    hardness = np.array([difficulty(c) for c in conversations])
    assert len(set(hardness)) > 6
    epochs = curriculum(conversations, buckets=4, epochs=9)
    assert [len(positions) for positions in epochs] == [3, 6, 9, 11, 11, 11, 11, 11, 11]
    for earlier, later in itertools.pairwise(epochs):
        assert set(earlier) <= set(later)
    for positions in epochs[:3]:
        left = np.setdiff1d(np.arange(11), positions)
        assert hardness[positions].max() <= hardness[left].min()
    for positions in epochs[3:]:
        np.testing.assert_array_equal(positions, np.arange(11))


def test_conversations_alike_stay_in_order():
    alike = [conversation("AB", [0, 1], str(i)) for i in range(7)]
    assert [p.tolist() for p in curriculum(alike, buckets=3, epochs=3)] == [[0, 1, 2], [0, 1, 2, 3, 4], [*range(7)]]


@pytest.mark.parametrize("buckets", [0, 1])
def test_without_buckets_every_epoch_has_all(buckets):
    for positions in curriculum(training(), buckets=buckets, epochs=3):
        np.testing.assert_array_equal(positions, np.arange(11))


def test_an_epochs_batches_hold_its_conversations_once_under_their_own_numbers():
    conversations, seen = training(), []
    options = {"batch_size": 3, "seed": 5, "row_multiple": 2, "lengths": (8,)}
    epochs = curriculum(conversations, buckets=4, epochs=6)
    for epoch, positions in enumerate(epochs):
        got = list(batches(conversations, WIDTHS, **options, epoch=epoch, subset=positions))
        assert len(got) == steps_per_epoch(len(positions), 3)
        index = np.concatenate([batch.row_ids for batch in got])
        assert sorted(index[index >= 0]) == positions.tolist()
        seen.append([batch.row_ids.tolist() for batch in got])
        for batch, row in itertools.product(got, range(4)):
            if batch.row_ids[row] >= 0:
                c = conversations[batch.row_ids[row]]
                np.testing.assert_array_equal(batch.labels[row][batch.mask[row]], c.labels)
                np.testing.assert_array_equal(batch.features["text"][row][batch.mask[row]], c.features["text"])
        for start in range(len(got) + 1):
            rest = batches(conversations, WIDTHS, **options, epoch=epoch, subset=positions, start=start)
            assert [batch.row_ids.tolist() for batch in rest] == seen[-1][start:]
    # From the epoch on that has all, batches are those of a run without a curriculum.
    for epoch in (3, 4, 5):
        assert seen[epoch] == [b.row_ids.tolist() for b in batches(conversations, WIDTHS, **options, epoch=epoch)]


@pytest.fixture
def follow(monkeypatch, tmp_path):
    """Trains the smallest model by a clock that gains a second per step; returns the metrics and what the loop told."""
    told = {"left": []}
    ticks = itertools.count()
    make = loop.make_optimizer

    def make_optimizer(config, *, steps):
        told["steps"] = steps
        return make(config, steps=steps)

    def progress_line(*_, seconds_left, **__):
        told["left"].append(seconds_left)
        return ""

    monkeypatch.setattr(loop, "make_optimizer", make_optimizer)
    monkeypatch.setattr(loop, "progress_line", progress_line)
    monkeypatch.setattr(execution, "time", types.SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    # No time passes between the steps.
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))

    def run(**changes):
        train(linear_config(training__parallel="jit", training__resident_megabytes=0, **changes), corpus(), tmp_path)
        return read_json_lines(tmp_path / JSON_LINES_FILE), told

    return run


def test_a_run_counts_what_it_trained(follow):
    rows, told = follow(training__curriculum=3, training__epochs=5)
    steps = [1, 2, 3, 3, 3]
    assert told["steps"] == steps
    assert [row["step"] for row in rows] == np.cumsum(steps).tolist()
    assert told["left"] == pytest.approx([11, 9, 6, 3, 0])
    for row, positions, count in zip(rows, curriculum(training(), buckets=3, epochs=5), steps, strict=True):
        assert row["utterances_per_second"] == pytest.approx(sum(len(training()[i]) for i in positions) / count)
    assert rows[-1]["utterances_per_second"] == pytest.approx(SIZES["train"].utterances / 3)


def test_the_time_left_counts_what_follows_the_steps_of_an_epoch(follow, monkeypatch):
    hundreds = itertools.count(0, 100)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: float(next(hundreds))))
    _, told = follow(training__curriculum=3, training__epochs=5)
    # Of the 100 seconds that each epoch takes, its steps take 1, 2 and 3.
    assert told["left"] == pytest.approx([11 + 4 * 99, 9 + 3 * 98, 6 + 2 * 97, 3 + 97, 0])


def test_a_run_without_a_curriculum_has_all_in_every_epoch(follow):
    rows, told = follow(training__epochs=2)
    assert told == {"steps": [3, 3], "left": [3, 0]}
    assert [row["utterances_per_second"] for row in rows] == pytest.approx([SIZES["train"].utterances / 3] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["multidag_iemocap", "lfvd_iemocap"])
def test_any_model_trains_on_a_curriculum(experiment, tmp_path):
    config = get_config(f"{experiment}:tiny")
    config.model.dag_layers = 1
    config.training.update(curriculum=2, epochs=2, batch_size=4, parallel="jit")
    assert train(config, corpus(), tmp_path)
    assert [row["step"] for row in read_json_lines(tmp_path / JSON_LINES_FILE)] == [2, 5]


@pytest.mark.parametrize(
    ("buckets", "frames", "message"),
    [
        (-1, False, "training.curriculum is -1: give a number of buckets, or 0 for none"),
        (3, True, "training.curriculum sorts conversations, but corpus 'synthetic-iemocap4' has frames and is trained"),
        (0, True, None),
        (3, False, None),
    ],
)
def test_mistakes_are_one_line(buckets, frames, message):
    changed = dataclasses.replace(corpus(), card=dataclasses.replace(corpus().card, frames=frames))
    refused = pytest.raises(UserError) if message else contextlib.nullcontext()
    with refused as refusal:
        check_config(tiny_config(training__curriculum=buckets, selection="last"), changed)
    if message:
        assert str(refusal.value).startswith(message)
        assert "\n" not in str(refusal.value)
