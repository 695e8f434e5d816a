"""Utterances that are sequences of frames: kept bit for bit, padded as a plain loop would, and trained one by one."""

import dataclasses
import functools
import json

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from tiny import Output

from experiments.baselines.context_regression import regress
from jmer.api import train
from jmer.command import exit_status
from jmer.config import base_config, fit_to_corpus
from jmer.data import make_corpus, normalization
from jmer.data.batching import batches, bucket_lengths, real_fraction, steps_per_epoch
from jmer.data.convert import convert
from jmer.data.corpus import CARD_FILE, Card, Conversation, build_corpus, load_saved, save_corpus
from jmer.data.examples import make_examples
from jmer.data.frames import mean_pooled, single_utterances
from jmer.data.inspect import describe
from jmer.data.integrity import DIGESTS_FILE
from jmer.data.outliers import count_outliers
from jmer.data.synthetic import Size, generate
from jmer.data.validation import checked_corpus, defects, validate_corpus
from jmer.errors import UserError
from jmer.evaluation.predictor import Predictor
from jmer.models import Model, ModelSpec, register_model
from jmer.runs import write_results
from jmer.training import create_train_state, make_parallel, train_step

WIDTHS = {"text": 3, "audio": 2}
CARD = Card("made-up", WIDTHS, ("calm", "angry"), "drawn at random", True, frames=True)
MOST = {"text": 6, "audio": 15}
SIZES = {"train": Size(6, 26, 8), "validation": Size(3, 12, 6), "test": Size(3, 11, 6)}


def conversation(name, length, offset=0.0):
    """Some utterances lack a modality, and the last of several lacks both."""
    rng = np.random.default_rng([len(name), ord(name[-1]), length])
    there = {m: (rng.random(length) < 0.8) & (np.arange(length) < max(length - 1, 1)) for m in WIDTHS}
    counts = {m: rng.integers(1, MOST[m] + 1, length) * there[m] for m in WIDTHS}
    return Conversation(
        id=name,
        utterances=[f"{name}_{i}" for i in range(length)],
        speakers=["A" if i % 2 else "Zoë" for i in range(length)],
        labels=rng.integers(-1, 2, length).astype(np.int32),
        features={
            m: [rng.normal(offset, 3, (count, width)).astype(np.float32) for count in counts[m]]
            for m, width in WIDTHS.items()
        },
        available=there,
        sentences=[f"“{i}”, he said" for i in range(length)],
    )


def split():
    return [conversation(name, length) for name, length in zip("abcde", (4, 1, 7, 3, 6), strict=True)]


def corpus(**options):
    return build_corpus({"test": [conversation("t", 5)], "train": split()}, CARD, **options)


def assert_same(one, other):
    for field in ("id", "utterances", "speakers", "sentences"):
        assert list(getattr(one, field)) == list(getattr(other, field))
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.features.keys() == other.features.keys()
    for m in one.features:
        np.testing.assert_array_equal(one.available[m], other.available[m])
        for a, b in zip(one.features[m], other.features[m], strict=True):
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_array_equal(a, b)


# The corpus.


def test_round_trip_is_exact_in_memory_in_a_nameless_file_and_on_disk(tmp_path):
    in_memory, in_file = corpus(), corpus(folder=tmp_path)
    assert not any(tmp_path.iterdir())
    for name, saved in (("memory", in_memory), ("file", in_file)):
        save_corpus(saved, tmp_path / name)
    for got in (in_memory, in_file, load_saved(tmp_path / "memory"), load_saved(tmp_path / "file")):
        assert got.card == CARD
        assert list(got.splits) == ["train", "test"]
        validate_corpus(got)
        for expected, c in zip(split(), got.conversations("train"), strict=True):
            assert c.has_frames
            assert_same(c, expected)
        assert_same(got.conversations("test")[0], conversation("t", 5))


def test_frames_are_views():
    first, again = (corpus_.conversations("train") for corpus_ in [corpus()] * 2)
    for c, same in zip(first, again, strict=True):
        for m in WIDTHS:
            for one, other in zip(c.features[m], same.features[m], strict=True):
                assert np.shares_memory(one, other) or not len(one)


def test_a_card_from_before_there_were_frames_or_digests_is_one_without(tmp_path):
    card = dataclasses.replace(CARD, frames=False)
    pooled = make_corpus({"train": mean_pooled(split())}, card)
    save_corpus(pooled, tmp_path / "c")
    fields = json.loads((tmp_path / "c" / CARD_FILE).read_text())
    del fields["frames"]
    (tmp_path / "c" / CARD_FILE).write_text(json.dumps(fields))
    (tmp_path / "c" / DIGESTS_FILE).unlink()
    loaded = load_saved(tmp_path / "c")
    assert loaded.card == card
    assert not any(c.has_frames for c in loaded.conversations("train"))


def test_damage_is_one_line(tmp_path):
    save_corpus(corpus(), tmp_path / "c")
    (arrow,) = (tmp_path / "c" / "train").glob("*.arrow")
    whole = arrow.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        bytes(255 - byte if i % 41 == 20 else byte for i, byte in enumerate(whole)),
        # Where the audio frames of the first utterances end.
        whole.replace(
            np.cumsum([len(x) for c in split() for x in c.features["audio"]], dtype=np.int32).tobytes(),
            np.arange(21, dtype=np.int32)[::-1].tobytes(),
        ),
    ):
        assert content != whole
        arrow.write_bytes(content)
        with pytest.raises(UserError, match="damaged: convert"):
            load_saved(tmp_path / "c").conversations("train")
    arrow.write_bytes(whole)
    card = (tmp_path / "c" / CARD_FILE).read_text()
    (tmp_path / "c" / CARD_FILE).write_text(card.replace('"frames": true', '"frames": false'))
    with pytest.raises(UserError, match=r"card.json is damaged: convert"):
        load_saved(tmp_path / "c")
    (tmp_path / "c" / DIGESTS_FILE).unlink()
    with pytest.raises(UserError, match=r"does not match card.json: its columns differ"):
        load_saved(tmp_path / "c")


@pytest.mark.parametrize("gap", ["conversation", "utterance", "frame"])
def test_a_gap_in_the_features_is_damage(gap):
    made = corpus()
    rows = made.splits["train"].to_list()
    if gap == "conversation":
        rows[0]["audio"] = None
    elif gap == "utterance":
        rows[0]["audio"][0] = None
    else:
        next(frames for frames in rows[0]["audio"] if frames)[0] = None
    made.splits["train"] = datasets.Dataset.from_list(rows, features=made.splits["train"].features)
    with pytest.raises(UserError, match="split 'train' of corpus 'made-up' is damaged: convert it again"):
        made.conversations("train")


def with_audio(frames, position=1, **changes):
    c = conversation("a", 4)
    audio = [frames if i == position else x for i, x in enumerate(c.features["audio"])]
    return dataclasses.replace(c, features=c.features | {"audio": audio}, **changes)


DEFECTS = {
    "NaN": (
        with_audio(np.full((3, 2), np.nan, np.float32)),
        "audio of utterance 'a_1' contains NaN or infinity, 6 values",
    ),
    "width": (
        with_audio(np.ones((3, 5), np.float32)),
        "audio of utterance 'a_1' has width 5: expected 2, as on the card",
    ),
    "whole numbers": (with_audio(np.ones((3, 2), int)), "is int64 of shape (3, 2), not floats [frames, width]"),
    "one vector": (with_audio(np.ones(2, np.float32)), "is float32 of shape (2,), not floats [frames, width]"),
    "no frames": (
        with_audio(np.zeros((0, 2), np.float32), available={m: np.ones(4, bool) for m in WIDTHS}),
        "audio of utterance 'a_1' is marked available but has no frames",
    ),
    "frames where there are none": (
        with_audio(np.ones((3, 2), np.float32), position=3),
        "audio of utterance 'a_3' is marked unavailable but has 3 frames",
    ),
    "too few": (
        dataclasses.replace(conversation("a", 4), features=conversation("a", 4).features | {"audio": []}),
        "audio features of 0 utterances but 4 labels",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_gets_its_line(defect):
    broken, expected = DEFECTS[defect]
    sound = [conversation("b", 3), conversation("c", 5)]
    assert not defects({"train": sound}, CARD)
    found = defects({"train": [*sound, broken]}, CARD)
    assert any(expected in line for line in found), found
    with pytest.raises(UserError, match="train, conversation 'a'"):
        checked_corpus({"train": [*sound, broken]}, CARD)


def test_frames_and_card_must_agree():
    flat = dataclasses.replace(CARD, frames=False)
    (line, *_) = defects({"train": [conversation("a", 2)]}, flat)
    assert "text has frames, but the card has one vector per utterance" in line
    assert "(3,), not floats [frames, width]" in defects({"train": mean_pooled([conversation("a", 2)])}, CARD)[0]


def test_inspect_counts_frames():
    lines = describe(corpus()).splitlines()
    assert max(map(len, lines)) <= 100
    for m, width in WIDTHS.items():
        frames = [x for c in split() for x in c.features[m] if len(x)]
        counts = [len(x) for x in frames]
        numbers = f"{min(counts)} {np.median(counts):g} {max(counts)} {sum(counts)}".split()
        lacking = 21 - len(frames)
        extremes = [f"{np.concatenate(frames).min():.4g}", f"{np.concatenate(frames).max():.4g}"]
        rows = [line.split()[2:] for line in lines if line.startswith(f"{m}, train")]
        assert rows == [[str(width), str(lacking), "0", *extremes], numbers]
    assert lines[-1] == "defects: none"


# Single utterances and their batches.


def test_single_utterances_keep_names_and_order():
    conversations = split()
    got = single_utterances(conversations)
    expected = [(c, i) for c in conversations for i in range(len(c))]
    assert len(got) == len(expected) == 21
    for one, (c, i) in zip(got, expected, strict=True):
        assert (one.id, one.utterances, one.speakers, one.sentences) == (
            c.id,
            [c.utterances[i]],
            [c.speakers[i]],
            [c.sentences[i]],
        )
        assert one.labels.tolist() == [c.labels[i]]
        for m in WIDTHS:
            assert one.available[m].tolist() == [c.available[m][i]]
            (frames,) = one.features[m]
            assert frames is c.features[m][i]


def test_examples_are_utterances_only_where_there_are_frames():
    assert [len(c) for c in make_examples(corpus().conversations("train"), frames=True)] == [1] * 21
    pooled = make_corpus({"train": mean_pooled(split())}, dataclasses.replace(CARD, frames=False))
    assert [len(c) for c in make_examples(pooled.conversations("train"), frames=False)] == [4, 1, 7, 3, 6]


@pytest.mark.parametrize(("batch_size", "multiple", "seed", "lengths"), [(4, 1, None, ()), (5, 8, 3, (4, 9, 15))])
def test_batches_equal_a_naive_construction(batch_size, multiple, seed, lengths):
    conversations = split()
    flat = [(c, i) for c in conversations for i in range(len(c))]
    options = {"batch_size": batch_size, "row_multiple": multiple, "seed": seed, "lengths": lengths}
    made = list(batches(single_utterances(conversations), WIDTHS, **options))
    seen = []
    for batch in made:
        rows = len(batch.row_ids)
        assert rows == -(-batch_size // multiple) * multiple
        longest = max(len(flat[p][0].features[m][flat[p][1]]) for p in batch.row_ids if p >= 0 for m in WIDTHS)
        length = next((n for n in sorted(lengths) if n >= longest), 16)
        mask, labels, speakers = np.zeros((rows, 1), bool), np.full((rows, 1), -1), np.full((rows, 1), -1)
        available = {m: np.zeros((rows, 1), bool) for m in WIDTHS}
        frames = {m: np.zeros((rows, 1, length), bool) for m in WIDTHS}
        features = {m: np.zeros((rows, 1, length, width), np.float32) for m, width in WIDTHS.items()}
        for row, position in enumerate(batch.row_ids):
            if position >= 0:
                seen.append(position)
                c, i = flat[position]
                mask[row], labels[row], speakers[row] = True, c.labels[i], 0
                for m in WIDTHS:
                    available[m][row] = c.available[m][i]
                    for f, frame in enumerate(c.features[m][i]):
                        frames[m][row, 0, f] = True
                        features[m][row, 0, f] = frame
        for got, expected in ((batch.mask, mask), (batch.labels, labels), (batch.speakers, speakers)):
            np.testing.assert_array_equal(got, expected)
        assert batch.labels.dtype == batch.speakers.dtype == batch.row_ids.dtype == np.int32
        for m in WIDTHS:
            for got, expected in zip(
                (batch.available[m], batch.frames[m], batch.features[m]),
                (available[m], frames[m], features[m]),
                strict=True,
            ):
                assert got.dtype == expected.dtype
                np.testing.assert_array_equal(got, expected)
    assert sorted(seen) == list(range(21))


def test_an_utterance_without_any_frame_is_there_and_empty():
    (empty,) = single_utterances([conversation("a", 4)])[3:]
    (batch,) = batches([empty], WIDTHS, batch_size=1)
    assert batch.mask.all()
    for m, width in WIDTHS.items():
        assert not batch.available[m].any()
        assert not batch.frames[m].any()
        assert batch.features[m].shape == (1, 1, 8, width)


def test_only_the_modalities_asked_for_are_padded():
    (batch,) = batches(single_utterances(split()), {"audio": 2}, batch_size=40)
    assert list(batch.features) == list(batch.frames) == list(batch.available) == ["audio"]


def test_buckets_fit_the_longest_modality():
    rows = single_utterances(split())
    sizes = [max(1, *(len(c.features[m][0]) for m in WIDTHS)) for c in rows]
    assert bucket_lengths(rows, batch_size=1, count=100) == tuple(sorted(set(sizes)))
    two = bucket_lengths(rows, batch_size=1, count=2)

    def padding(low):
        return sum(low if n <= low else max(sizes) for n in sizes)

    assert two[1] == max(sizes)
    assert padding(two[0]) == min(padding(low) for low in set(sizes) - {max(sizes)})
    made = list(batches(rows, WIDTHS, batch_size=1, lengths=two))
    assert [b.frames["text"].shape[-1] for b in made] == [two[0] if n <= two[0] else two[1] for n in sorted(sizes)]
    real = sum(len(c.features[m][0]) for c in rows for m in WIDTHS)
    np.testing.assert_allclose(real_fraction(made), real / (2 * padding(two[0])), rtol=1e-12)


def test_order_and_resumption_are_those_of_any_corpus():
    rows = single_utterances(split())

    def order(**options):
        made = batches(rows, WIDTHS, batch_size=4, seed=1, epoch=2, **options)
        return [b.row_ids[b.row_ids >= 0].tolist() for b in made]

    whole = order()
    assert len(whole) == steps_per_epoch(len(rows), 4) == 6
    assert order(row_multiple=8) == order(lengths=(15,)) == whole
    for start in range(7):
        assert order(start=start) == whole[start:]


def test_conversations_of_several_utterances_are_refused():
    for run in (
        lambda: batches(split(), WIDTHS, batch_size=4),
        lambda: bucket_lengths(split(), batch_size=4),
    ):
        with pytest.raises(UserError, match=r"conversation 'a' has frames and 4 utterances.*single_utterances"):
            run()


# Normalisation and pooling.


def test_normalisation_is_over_real_frames_only():
    training = [conversation(c.id, len(c), offset=5) for c in split()]
    held_out = [conversation("t", 5, offset=4)]
    statistics = normalization.fit(training, WIDTHS)
    for m in WIDTHS:
        reference = np.concatenate([x for c in training for x in c.features[m]]).astype(np.float64)
        np.testing.assert_allclose(statistics[m].mean, reference.mean(0), rtol=1e-6)
        np.testing.assert_allclose(statistics[m].scale, reference.std(0), rtol=1e-6)
        for given in (training, held_out):
            for c, got in zip(given, normalization.apply(given, statistics), strict=True):
                for x, z in zip(c.features[m], got.features[m], strict=True):
                    assert z.dtype == np.float32
                    np.testing.assert_allclose(z, (x - reference.mean(0)) / reference.std(0), atol=1e-5)
                np.testing.assert_array_equal(got.available[m], c.available[m])
    rows = normalization.fit(single_utterances(training), WIDTHS)
    for m in WIDTHS:
        np.testing.assert_allclose(rows[m].mean, statistics[m].mean, rtol=1e-6)


def test_columns_that_are_constant_over_all_frames_are_zero_and_others_are_clipped():
    def changed(c, value):
        features = {
            m: [np.where(np.arange(x.shape[1]) == 1, np.float32(value), x) for x in c.features[m]] for m in WIDTHS
        }
        return dataclasses.replace(c, features=features)

    training, held_out = [changed(c, 5) for c in split()], changed(conversation("t", 5, offset=90), 4000)
    statistics = normalization.fit(training, WIDTHS, clip=2)
    for c in normalization.apply([*training, held_out], statistics):
        for m in WIDTHS:
            frames = np.concatenate(c.features[m])
            assert not frames[:, 1].any() and np.abs(frames).max(initial=0) <= 2
    for m, found in count_outliers([held_out], statistics).items():
        frames = len(np.concatenate(held_out.features[m]))
        assert found == (frames * (WIDTHS[m] - 1), WIDTHS[m] - 1, frames, 1)
    assert not any(any(found) for found in count_outliers(training, statistics).values())


def test_mean_pooling():
    for c, pooled in zip(split(), mean_pooled(split()), strict=True):
        assert not pooled.has_frames
        for m, width in WIDTHS.items():
            expected = [np.float64(x).mean(0) if len(x) else np.zeros(width) for x in c.features[m]]
            assert pooled.features[m].dtype == np.float32
            np.testing.assert_allclose(pooled.features[m], expected, rtol=1e-5, atol=1e-6)


def small(name="synthetic-iemocap4-frames"):
    return generate(name, sizes=SIZES, widths={"text": 6, "audio": 4})


def test_the_regression_on_neighbours_takes_the_mean_of_frames():
    frames = small()
    splits = {s: mean_pooled(frames.conversations(s)) for s in ("train", "validation")}
    pooled = make_corpus(splits, dataclasses.replace(frames.card, frames=False))
    for context in (0, 2):
        got, expected = (regress(c, ("text", "audio"), context, strengths=(0.1,)) for c in (frames, pooled))
        assert got == expected


# The synthetic corpus.


def test_the_synthetic_corpus_is_small_and_its_modalities_differ_in_length():
    made = generate("synthetic-iemocap4-frames")
    assert made.card.frames and made.card.synthetic
    assert made.card.widths == {"text": 64, "audio": 64}
    rows = [c for s in made.splits for c in make_examples(made.conversations(s), frames=True)]
    assert len(rows) == 5531
    lengths = {m: np.array([len(c.features[m][0]) for c in rows]) for m in made.card.modalities}
    lacking = lengths["audio"] == 0
    assert 0 < lacking.sum() < 20
    assert (lengths["text"].min(), lengths["audio"][~lacking].min()) == (5, 15)
    assert lengths["text"].max() <= 40 and lengths["audio"].max() <= 120
    assert (lengths["audio"][~lacking] > 2 * lengths["text"][~lacking]).all()
    assert sum(map(sum, lengths.values())) * 64 * 4 < 100e6
    for one, same in zip(small().conversations("test"), small().conversations("test"), strict=True):
        assert_same(one, same)


@pytest.mark.slow
def test_pooling_and_attention_have_something_to_win():
    """Logistic regressions on one frame, on the mean, and on a mean that favours the frames with most energy."""
    sizes = {"train": Size(60, 2100, 110), "test": Size(60, 2100, 110)}
    made = generate("synthetic-iemocap4-frames", sizes=sizes)
    training = made.conversations("train")
    statistics = normalization.fit(training, made.card.widths)

    def favouring(frames):
        energy = np.square(frames).mean(1)
        weights = np.exp(energy - energy.max(initial=0))[:, None]
        return (weights * frames).sum(0) / max(weights.sum(), 1)

    def table(split_, summary):
        rows = single_utterances(normalization.apply(made.conversations(split_), statistics))
        inputs = [np.concatenate([summary(c.features[m][0]) for m in made.card.modalities]) for c in rows]
        return np.stack(inputs), np.concatenate([c.labels for c in rows])

    def score(summary):
        x, y = table("train", summary)
        mean, scale = x.mean(0), x.std(0)
        fitted = LogisticRegression(C=0.01, max_iter=1000).fit((x - mean) / scale, y)
        x, y = table("test", summary)
        return f1_score(y, fitted.predict((x - mean) / scale), average="weighted")

    one = score(lambda frames: frames[len(frames) // 2] if len(frames) else np.zeros(64))
    mean = score(lambda frames: frames.sum(0) / max(len(frames), 1))
    assert one + 0.1 < mean < score(favouring) - 0.015


# Training, scoring and predicting.


class Pooling(nn.Module):
    """Logits that are linear in the mean over real frames of every modality."""

    num_classes: int
    mode: str = "frame"

    @nn.compact
    def __call__(self, batch, *, train=False):
        means = []
        for m in sorted(batch.features):
            x, real = batch.features[m], batch.frames[m][..., None]
            means.append(jnp.where(real, x, 0).sum(2) / jnp.maximum(real.sum(2), 1))
        return Output(nn.Dense(self.num_classes)(jnp.concatenate(means, -1)))


def cross_entropy(output, batch, axis=None):
    real = batch.mask & (batch.labels >= 0)
    log_odds = jax.nn.log_softmax(output.logits)
    values = -jnp.take_along_axis(log_odds, jnp.maximum(batch.labels, 0)[..., None], -1)[..., 0]
    return {"task": (1.0, jnp.where(real, values, 0).sum(), real.sum())}


POOLING = ModelSpec("pooling", Pooling, cross_entropy, frames_when={"mode": "frame"})


@functools.cache
def trained(backend):
    """Trains for four epochs through the public step; returns the corpus, the trained predictor and the losses."""
    made, model, optimizer = small(), Model(POOLING, Pooling(4), cross_entropy), optax.adam(0.05)
    rows = make_examples(made.conversations("train"), frames=True)
    normalizing = normalization.fit(rows, made.card.widths)
    parallel = make_parallel(backend, 8 if backend == "pmap" else 0)
    state = parallel.replicate(create_train_state(model, optimizer, made.card.widths, 0, frames=True))
    step = parallel.step(functools.partial(train_step, model=model, optimizer=optimizer))
    inputs, losses = normalization.apply(rows, normalizing), []
    options = {"batch_size": 6, "seed": 0, "row_multiple": parallel.row_multiple}
    for epoch in range(4):
        for batch in batches(inputs, made.card.widths, epoch=epoch, **options):
            state, metrics = step(state, batch)
            assert metrics.finite
            losses.append(float(metrics.loss))
    variables = jax.device_get(state.variables)
    return made, Predictor(model, variables, normalizing, made.card.emotions, frames=True, batch_size=4), losses


def test_a_network_learns_and_predicts_frames_utterance_by_utterance():
    made, predictor, losses = trained("jit")
    steps = steps_per_epoch(SIZES["train"].utterances, 6)
    assert np.mean(losses[-steps:]) < 0.8 * np.mean(losses[:steps])
    table = predictor.predict(made, "test")
    conversations = made.conversations("test")
    assert list(zip(table.conversation, table.utterance, table.speaker, strict=True)) == [
        row for c in conversations for row in zip([c.id] * len(c), c.utterances, c.speakers, strict=True)
    ]
    kernel, bias = (np.float64(predictor.variables["params"]["Dense_0"][name]) for name in ("kernel", "bias"))
    expected = []
    for c in conversations:
        for i in range(len(c)):
            means = []
            for m, s in sorted(predictor.normalization.items()):
                z = (np.float64(c.features[m][i]) - s.mean) / s.scale
                means.append(z.sum(0) / max(len(z), 1))
            odds = np.exp(np.concatenate(means) @ kernel + bias)
            expected.append(odds / odds.sum())
    probabilities = table[[f"probability_{emotion}" for emotion in made.card.emotions]].to_numpy()
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)
    assert len(predictor.predict(made)) == sum(s.utterances for s in SIZES.values())


def test_eight_devices_train_as_one_does():
    _, alone, losses = trained("jit")
    _, together, losses_together = trained("pmap")
    np.testing.assert_allclose(losses_together, losses, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), alone.variables, together.variables
    )


@pytest.fixture
def pooling():
    """Registers the network; returns its configuration for one short run."""
    register_model(POOLING)
    config = base_config("pooling")
    config.training.update({"epochs": 2, "batch_size": 8, "buckets": 1, "parallel": "jit"})
    return config


@pytest.mark.slow
def test_a_whole_run(pooling, tmp_path):
    lines, made = [], small()
    assert train(pooling, made, tmp_path / "run", log=lines.append).epochs == 2
    assert "utterances with frames train 26, validation 12, test 11" in lines[0]
    assert not any("this run is finished" in line for line in lines)
    train(pooling, made, tmp_path / "run", log=lines.append)
    assert "this run is finished" in lines[-1]
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    for s, size in SIZES.items():
        table = (tmp_path / "run" / "predictions" / f"{s}.csv").read_text().splitlines()
        assert len(table) == 1 + size.utterances
        assert np.sum(scores["splits"][s]["confusion"]) == size.utterances
    pooled = {s: mean_pooled(made.conversations(s)) for s in made.splits}
    pooled = make_corpus(pooled, dataclasses.replace(made.card, frames=False))
    with pytest.raises(UserError, match="has one vector per utterance, the model was trained on frames in each utter"):
        write_results(tmp_path / "run", pooled, log=lines.append)


def test_a_model_of_the_other_mode_is_refused(pooling):
    card, flat = small().card, dataclasses.replace(small().card, frames=False)
    conversations = small().conversations("train")
    assert fit_to_corpus(pooling, card, conversations).model.num_classes == 4
    for config, fitting, message in (
        (
            base_config("lfvd"),
            card,
            "has frames, but model lfvd takes one vector per utterance: choose a model that reads frames",
        ),
        (
            pooling,
            flat,
            "model.mode=frame reads frames, but corpus 'synthetic-iemocap4-frames' has one vector per utterance: chan",
        ),
    ):
        with pytest.raises(UserError, match=message) as caught:
            fit_to_corpus(config, fitting, conversations)
        assert "\n" not in str(caught.value)
    pooling.model.mode = "utterance"
    with pytest.raises(UserError, match=r"pooling takes one vector per utterance: set model.mode=frame"):
        fit_to_corpus(pooling, card, conversations)
    assert fit_to_corpus(pooling, flat, conversations).model.num_classes == 4


# The converter.

FLAGS = [
    "frames",
    "--conversation=talk",
    "--utterance=name",
    "--speaker=who",
    "--label=emotion",
    "--emotions=calm,angry",
    "--split=part",
]
FOLDERS = ["--text=bert", "--audio=e2v"]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A table, and the files of its utterances in the working folder; returns what the corpus must hold."""
    monkeypatch.chdir(tmp_path)
    conversations = {"train": split(), "dev": [conversation("v", 4)], "test": [conversation("t", 5)]}
    lines = ["talk,name,who,emotion,part"]
    for folder in ("bert", "e2v"):
        (tmp_path / folder).mkdir()
    for part, rows in conversations.items():
        for c in rows:
            for i, name in enumerate(c.utterances):
                label = {-1: "", 0: "calm", 1: "angry"}[int(c.labels[i])]
                lines.append(f"{c.id},{name},{c.speakers[i]},{label},{part}")
                for m, folder in (("text", "bert"), ("audio", "e2v")):
                    if c.available[m][i]:
                        np.save(tmp_path / folder / f"{name}.npy", c.features[m][i])
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "untrained.csv").write_text("\n".join([lines[0], *lines[-5:]]) + "\n", encoding="utf-8")
    return {
        {"dev": "validation"}.get(part, part): [dataclasses.replace(c, sentences=[""] * len(c)) for c in rows]
        for part, rows in conversations.items()
    }


def test_folders_of_files_become_the_corpus(sources, tmp_path, capsys):
    convert([*FLAGS, "table.csv", *FOLDERS, "made/corpus", "--name=mine"])
    made = load_saved(tmp_path / "made" / "corpus")
    assert (made.card.name, made.card.widths, made.card.frames, made.card.synthetic) == ("mine", WIDTHS, True, False)
    assert made.card.emotions == ("calm", "angry")
    assert "text from bert, audio from e2v" in made.card.provenance
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["corpus"]
    for part, expected in sources.items():
        for got, c in zip(made.conversations(part), expected, strict=True):
            assert_same(got, c)
    lacking = sum(np.count_nonzero(~c.available["text"]) for c in split())
    assert f"train: text unavailable in {lacking} of 21 utterances" in capsys.readouterr().out


def test_other_precisions_are_rounded_and_validation_is_held_out(sources, tmp_path, capsys):
    name = next(name for name, there in zip(split()[2].utterances, split()[2].available["text"], strict=True) if there)
    np.save(tmp_path / "bert" / f"{name}.npy", np.full((2, 3), 1 / 3, np.float64))
    table = (tmp_path / "table.csv").read_text(encoding="utf-8").replace(",dev\n", ",train\n")
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    convert([*FLAGS, "table.csv", *FOLDERS, "corpus", "--holdout=0.3"])
    made = load_saved(tmp_path / "corpus")
    assert list(made.splits) == ["train", "validation", "test"]
    assert "held out of train" in capsys.readouterr().out
    assert "Validation: whole conversations" in made.card.provenance
    got = {c.id: c for s in ("train", "validation") for c in made.conversations(s)}
    for expected in (*sources["train"], *sources["validation"]):
        if expected.id != "c":
            assert_same(got[expected.id], expected)
    frames = got["c"].features["text"][split()[2].utterances.index(name)]
    np.testing.assert_array_equal(frames, np.full((2, 3), np.float32(1 / 3)))


def a_file(write):
    """A mistake in one utterance's file."""
    return lambda folder: write(folder / "bert" / "a_0.npy")


def saved(array, **options):
    return a_file(lambda path: np.save(path, array, **options))


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def npz(path):
    with path.open("wb") as file:
        np.savez(file, x=np.ones((2, 3)))


def nothing(folder):
    pass


def the_same_name(folder):
    (folder / "table.csv").write_text("talk,name,who,emotion,part\n1,u,A,calm,train\n2,u,A,calm,train\n")


INFINITE = np.ones((4, 3))
INFINITE[2, 1] = np.inf
MISTAKES = {
    "one vector": (saved(np.ones(3)), FOLDERS, ["bert/a_0.npy is float64 of shape (3,)", "[frames, width]"]),
    "three axes": (saved(np.ones((1, 4, 3))), FOLDERS, ["bert/a_0.npy is float64 of shape (1, 4, 3)"]),
    "whole numbers": (saved(np.ones((4, 3), int)), FOLDERS, ["bert/a_0.npy is int64 of shape (4, 3)", "floats"]),
    "NaN": (saved(np.full((4, 3), np.nan)), FOLDERS, ["bert/a_0.npy contains NaN or infinity in frame 1 of 4"]),
    "infinity": (saved(INFINITE), FOLDERS, ["bert/a_0.npy contains NaN or infinity in frame 3 of 4"]),
    "too large": (saved(np.full((1, 3), 1e300)), FOLDERS, ["bert/a_0.npy contains NaN or infinity in frame 1 of 1"]),
    "no frames": (saved(np.ones((0, 3))), FOLDERS, ["bert/a_0.npy contains no frames: remove it"]),
    "other width": (
        lambda folder: np.save(folder / "e2v" / "c_1.npy", np.ones((4, 9))),
        FOLDERS,
        ["e2v/c_1.npy has width 9 but e2v/", ".npy has 2: extract"],
    ),
    "objects": (saved(np.array([[None]]), allow_pickle=True), FOLDERS, ["bert/a_0.npy contains Python objects"]),
    "cut": (a_file(cut), FOLDERS, ["bert/a_0.npy is truncated"]),
    "empty": (a_file(lambda path: path.write_bytes(b"")), FOLDERS, ["bert/a_0.npy is empty"]),
    "text": (
        a_file(lambda path: path.write_text("1 2 3")),
        FOLDERS,
        ["bert/a_0.npy is a text file that"],
    ),
    "several arrays": (a_file(npz), FOLDERS, ["bert/a_0.npy contains several arrays"]),
    "no such folder": (nothing, ["--text=brt"], ["no folder brt: --text expects the folder"]),
    "no folder": (nothing, [], ["no folder of frames: give --text, --audio or --visual FOLDER"]),
    "folder of others": (
        nothing,
        ["--text=."],
        [". has no text frames for any of the 30 utterances, for example no a_0.npy"],
    ),
    "no names": (nothing, ["--utterance=", "--text=bert"], ["no column for the utterance", "give --utterance COLUMN"]),
    "names twice": (
        the_same_name,
        FOLDERS,
        ["table.csv: column 'name' has the name 'u' for 2 utterances", "name of its own"],
    ),
    "foreign column": (nothing, [*FOLDERS, "--label=x"], ["table.csv has no column 'x' for the label"]),
    "column of features": (nothing, ["--text", "bert", "--sentiment=x"], ["unrecognized arguments: --sentiment=x"]),
    "no training": (nothing, [*FOLDERS, "untrained.csv"], ["no row of column 'part' is train", "--predict-only"]),
}


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(mistake, tmp_path, capsys):
    make, flags, expected = MISTAKES[mistake]
    make(tmp_path)
    table = [] if "untrained.csv" in flags else ["table.csv"]
    before = sorted(tmp_path.rglob("*"))
    assert exit_status(convert, [*FLAGS, *flags, *table, "corpus"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and len(err.splitlines()) == 1, err
    assert all(part in err for part in expected), err
    assert sorted(tmp_path.rglob("*")) == before
