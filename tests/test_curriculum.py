"""Curricula: difficulties counted by hand, epochs that grow from easy to hard, and a run that follows them."""

import contextlib
import dataclasses
import functools
import itertools
import types

import numpy as np
import pytest
from tiny import SIZES, WIDTHS, by_shifts, linear_config, tiny_config, tiny_corpus, train

from jmer.config import base_config, check_config
from jmer.data.batching import batches
from jmer.data.corpus import Conversation
from jmer.data.curriculum import Curriculum, curriculum_lines, make_curriculum
from jmer.data.emotion_wheel import similarities, without_angle
from jmer.data.packing import steps_per_epoch
from jmer.errors import UserError
from jmer.experiment import get_config
from jmer.training import execution, loop, saving
from jmer.training.metric_writers import JSON_LINES_FILE, read_json_lines


def conversation(speakers, labels, name="c"):
    n = len(labels)
    return Conversation(
        name, [f"{i}" for i in range(n)], list(speakers), np.array(labels, np.int32), {}, {}, sentences=[""] * n
    )


def section(**changes):
    """The section `curriculum` of a configuration."""
    return base_config("lfvd").curriculum.to_dict() | changes


def shifts(buckets, **changes) -> Curriculum:
    """MultiDAG's curriculum."""
    return make_curriculum(section(measure="shift", buckets=buckets, **changes), [f"{i}" for i in range(9)])


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
    assert shifts(1).difficulty(conversation(speakers, labels)) == expected


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
    epochs = shifts(buckets).epochs(conversations, buckets + 3)
    assert len(epochs) == buckets + 3
    for number, positions in enumerate(epochs, 1):
        assert positions.tolist() == transcribed_epoch(conversations, buckets, number)


def test_epochs_grow_from_easy_to_hard_until_all_is_there():
    conversations = made_up()
    hardness = np.array([shifts(1).difficulty(c) for c in conversations])
    assert len(set(hardness)) > 6
    epochs = shifts(4).epochs(conversations, 9)
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
    assert [p.tolist() for p in shifts(3).epochs(alike, 3)] == [[0, 1, 2], [0, 1, 2, 3, 4], [*range(7)]]


def test_one_bucket_has_all_from_the_start():
    for positions in shifts(1).epochs(training(), 3):
        np.testing.assert_array_equal(positions, np.arange(11))


def test_a_bucket_may_last_for_several_epochs():
    conversations = made_up()
    fast, slow = shifts(3).epochs(conversations, 4), shifts(3, epochs_per_bucket=3).epochs(conversations, 12)
    for epoch, positions in enumerate(slow):
        np.testing.assert_array_equal(positions, fast[epoch // 3])


def test_an_epochs_batches_hold_its_conversations_once_under_their_own_numbers():
    conversations, seen = training(), []
    options = {"batch_size": 3, "seed": 5, "row_multiple": 2, "lengths": (8,)}
    epochs = shifts(4).epochs(conversations, 6)
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


# The improved curriculum.

MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
IEMOCAP = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
# Pairs of emotions that are alike, as LSDGNN's authors have them; all others without neutral are not.
ALIKE = {
    IEMOCAP: {("happy", "excited"): 0.809, ("frustrated", "sad"): 0.309},
    MELD: {
        ("disgust", "fear"): 0.951,
        ("joy", "surprise"): 0.588,
        ("anger", "disgust"): 0.588,
        ("anger", "fear"): 0.309,
    },
}


@pytest.mark.parametrize("emotions", ALIKE, ids=["iemocap", "meld"])
def test_emotions_are_alike_as_their_angles_are(emotions):
    found = similarities(emotions)
    for (i, one), (j, other) in itertools.permutations(enumerate(emotions), 2):
        pairs = ALIKE[emotions]
        expected = pairs.get((one, other), pairs.get((other, one), 0))
        expected = 1 / len(emotions) if "neutral" in (one, other) else expected
        assert found[i, j] == pytest.approx(expected, abs=5e-4)
    assert without_angle(emotions) == []


def test_an_emotion_without_an_angle_counts_as_neutral_and_is_named_once():
    emotions = ("joyful", "mad", "peaceful", "neutral", "Sad", "powerful", "scared")
    assert without_angle(emotions) == ["peaceful", "powerful"]
    found = similarities(emotions)
    np.testing.assert_array_equal(found[2], 1 / 7)
    (line,) = curriculum_lines(section(measure="weighted_shift"), emotions)
    assert line == (
        "curriculum: no angle is known of peaceful, powerful, which count as neutral; curriculum.angles gives one"
    )
    angles = ("peaceful=315", "powerful=neutral")
    assert without_angle(emotions, angles) == []
    given = similarities(emotions, angles)
    assert given[2, 0] == pytest.approx(np.cos(np.radians(315 - 27))) and given[2, 4] == 0 and given[5, 0] == 1 / 7
    for measure in ("none", "shift"):
        assert curriculum_lines(section(measure=measure), emotions) == []
    assert curriculum_lines(section(measure="weighted_shift", angles=angles), emotions) == []


def weighted(buckets=1, emotions=IEMOCAP, **changes):
    return make_curriculum(section(measure="weighted_shift", buckets=buckets, **changes), emotions)


def test_a_shift_weighs_what_its_emotions_say():
    happy, sad, neutral, _, excited, frustrated = range(6)
    labels = [happy, sad, excited, sad, frustrated, neutral, -1, happy]
    # A: happy excited frustrated unlabelled; B: sad sad neutral happy.
    weight = (0.809017 + 0.4) + (0 + 0.4) + (1 / 6 + 0.4) + (1 / 6 + 0.4)
    one = conversation("ABABABAB", labels)
    assert weighted().difficulty(one) == pytest.approx((weight + 2) / (8 + 2), abs=1e-6)
    more = 2 * (weight - 4 * 0.4) + 4 * 0.1
    assert weighted(scale=2.0, offset=0.1).difficulty(one) == pytest.approx((more + 2) / (8 + 2), abs=1e-6)


def test_what_is_unlabelled_breaks_a_pair():
    assert weighted(scale=0.0, offset=1.0).difficulty(conversation("AAAA", [0, -1, 1, 2])) == (1 + 1) / (4 + 1)


def test_equal_weights_without_gaps_are_the_number_of_shifts():
    for c in made_up():
        labelled = dataclasses.replace(c, labels=np.abs(c.labels))
        assert weighted(scale=0.0, offset=1.0).difficulty(labelled) == shifts(1).difficulty(labelled)


@pytest.mark.parametrize(("buckets", "sizes"), [(4, [3, 6, 9, 11]), (5, [3, 6, 9, 11]), (6, [2, 4, 6, 8, 10, 11])])
def test_buckets_are_full_but_for_the_last(buckets, sizes):
    """As those who publish it cut: eleven conversations in five buckets are four."""
    assert [len(positions) for positions in weighted(buckets).epochs(made_up(), 8)] == (sizes + [11] * 8)[:8]


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
    for module in (loop, saving):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))

    def run(**changes):
        train(linear_config(training__parallel="jit", training__resident_megabytes=0, **changes), corpus(), tmp_path)
        return read_json_lines(tmp_path / JSON_LINES_FILE), told

    return run


def test_a_run_counts_what_it_trained(follow):
    rows, told = follow(**by_shifts(3), training__epochs=5)
    steps = [1, 2, 3, 3, 3]
    assert told["steps"] == steps
    assert [row["step"] for row in rows] == np.cumsum(steps).tolist()
    assert told["left"] == pytest.approx([11, 9, 6, 3, 0])
    seen = 0
    for row, positions, count in zip(rows, shifts(3).epochs(training(), 5), steps, strict=True):
        seen = seen + sum(len(training()[i]) for i in positions)
        assert row["utterances_seen"] == seen
        assert row["utterances_per_second"] == pytest.approx(sum(len(training()[i]) for i in positions) / count)
    assert rows[-1]["utterances_per_second"] == pytest.approx(SIZES["train"].utterances / 3)


def test_the_time_left_counts_what_follows_the_steps_of_an_epoch(follow, monkeypatch):
    hundreds = itertools.count(0, 100)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: float(next(hundreds))))
    _, told = follow(**by_shifts(3), training__epochs=5)
    # Of the 100 seconds that each epoch takes, its steps take 1, 2 and 3.
    assert told["left"] == pytest.approx([11 + 4 * 99, 9 + 3 * 98, 6 + 2 * 97, 3 + 97, 0])


def test_the_time_left_counts_the_saves_that_follow(follow, monkeypatch):
    tens = itertools.count(0, 10)
    monkeypatch.setattr(saving, "time", types.SimpleNamespace(perf_counter=lambda: float(next(tens))))
    _, told = follow(**by_shifts(3), training__epochs=5, training__save_share=1.0)
    assert told["left"] == pytest.approx([11 + 4 * 10, 9 + 3 * 10, 6 + 2 * 10, 3 + 10, 0])


def test_a_run_without_a_curriculum_has_all_in_every_epoch(follow):
    rows, told = follow(training__epochs=2)
    assert told == {"steps": [3, 3], "left": [3, 0]}
    assert [row["utterances_per_second"] for row in rows] == pytest.approx([SIZES["train"].utterances / 3] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["multidag_iemocap", "lfvd_iemocap"])
def test_any_model_trains_on_a_curriculum(experiment, tmp_path):
    config = get_config(f"{experiment}:tiny")
    config.model.dag_layers = 1
    config.curriculum.update(measure="shift", buckets=2)
    config.training.update(epochs=2, batch_size=4, parallel="jit")
    assert train(config, corpus(), tmp_path)
    assert [row["step"] for row in read_json_lines(tmp_path / JSON_LINES_FILE)] == [2, 5]


@pytest.mark.parametrize(
    ("changes", "frames", "message"),
    [
        ({"buckets": 0}, False, "curriculum.buckets is 0: give at least 1"),
        ({"epochs_per_bucket": 0}, False, "curriculum.epochs_per_bucket is 0: give at least 1"),
        ({"measure": "shifts"}, False, "curriculum.measure is 'shifts': choose one of none, shift, weighted_shift"),
        ({"scale": -1.0}, False, "curriculum.scale is -1.0: give a number that is not negative"),
        ({"offset": float("nan")}, False, "curriculum.offset is nan: give a number that is not negative"),
        (
            {"angles": ("joy=27",)},
            False,
            "curriculum.angles has 'joy=27': give EMOTION=DEGREES or EMOTION=neutral,",
        ),
        ({"angles": ("sad=x",)}, False, "curriculum.angles has 'sad=x': give a number of degrees, or neutral"),
        ({"angles": ("sad=inf",)}, False, "curriculum.angles has 'sad=inf': give a number of degrees, or neutral"),
        (
            {"measure": "weighted_shift"},
            True,
            "curriculum.measure=weighted_shift sorts conversations, but corpus 'synthetic-iemocap4' has frames and is",
        ),
        ({}, True, None),
        ({"measure": "shift"}, False, None),
        ({"measure": "weighted_shift", "angles": ("sad=270", "happy=neutral")}, False, None),
    ],
)
def test_mistakes_are_one_line(changes, frames, message):
    changed = dataclasses.replace(corpus(), card=dataclasses.replace(corpus().card, frames=frames))
    refused = pytest.raises(UserError) if message else contextlib.nullcontext()
    with refused as refusal:
        fields = {f"curriculum__{name}": value for name, value in changes.items()}
        check_config(tiny_config(selection="last", **fields), changed)
    if message:
        assert str(refusal.value).startswith(message)
        assert "\n" not in str(refusal.value)
