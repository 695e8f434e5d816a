"""Standardised features: mean 0 and deviation 1 over what is there, zero where nothing is, the same at every use."""

import dataclasses

import jax
import numpy as np

from jmer.data.corpus import Conversation
from jmer.data.normalization import Standardization, apply, fit

WIDTHS = {"text": 4, "audio": 3}


def conversation(length, seed, offset=0.0, share=0.7):
    rng = np.random.default_rng([length, seed])
    available = {m: rng.random(length) < share for m in WIDTHS}
    features = {m: rng.normal(offset, 3, (length, d)) * available[m][:, None] for m, d in WIDTHS.items()}
    return Conversation(
        id=str(seed),
        utterances=[str(i) for i in range(length)],
        speakers=["A"] * length,
        labels=np.zeros(length, np.int32),
        features={m: x.astype(np.float32) for m, x in features.items()},
        available=available,
        sentences=[""] * length,
    )


def stacked(conversations, modality):
    return np.concatenate([c.features[modality][c.available[modality]] for c in conversations]).astype(np.float64)


def test_equals_the_z_scores_of_available_utterances():
    training = [conversation(n, n, offset=5) for n in (3, 30, 8, 1)]
    statistics = fit(training, WIDTHS)
    held_out = [conversation(9, 99)]
    for given, got in ((training, apply(training, statistics)), (held_out, apply(held_out, statistics))):
        for m in WIDTHS:
            reference = stacked(training, m)
            expected = (stacked(given, m) - reference.mean(0)) / np.sqrt(((reference - reference.mean(0)) ** 2).mean(0))
            np.testing.assert_allclose(stacked(got, m), expected, atol=1e-5)
            assert all(c.features[m].dtype == np.float32 for c in got)


def test_unavailable_features_are_exactly_zero():
    training = [conversation(40, 0, offset=5)]
    (got,) = apply(training, fit(training, WIDTHS))
    for m in WIDTHS:
        missing = got.features[m][~got.available[m]]
        assert len(missing) and not missing.any()


def test_a_constant_column_becomes_zero_and_new_values_stay_bounded():
    base = conversation(2000, 0, share=2)
    for value in (0.0, 0.1, -1e6):  # 0.1 is not exact in binary: its sums carry rounding errors
        features = base.features["text"].copy()
        features[:, 1] = value
        training = [dataclasses.replace(base, features=base.features | {"text": features})]
        statistics = fit(training, WIDTHS)
        assert statistics["text"].scale[1] == 1
        (got,) = apply(training, statistics)
        np.testing.assert_allclose(got.features["text"][:, 1], 0, atol=1e-8)
        assert (statistics["text"].scale[[0, 2, 3]] > 1).all()


def test_large_offsets_keep_their_precision():
    base = conversation(5000, 0, share=2)
    far = dataclasses.replace(base, features={m: x + np.float32(4096) for m, x in base.features.items()})
    statistics = fit([far], WIDTHS)
    for m in WIDTHS:
        np.testing.assert_allclose(statistics[m].scale, far.features[m].astype(np.float64).std(0), rtol=1e-6)


def test_a_modality_that_nobody_has_is_left_at_zero():
    nothing = [conversation(5, 0, share=-1)]
    statistics = fit(nothing, WIDTHS)
    np.testing.assert_array_equal(statistics["audio"].mean, 0)
    np.testing.assert_array_equal(statistics["audio"].scale, 1)
    assert not apply(nothing, statistics)[0].features["audio"].any()


def test_keeps_the_modalities_of_the_statistics_and_everything_else():
    given = conversation(5, 0)
    (got,) = apply([given], fit([given], {"audio": 3}))
    assert list(got.features) == list(got.available) == ["audio"]
    assert (got.id, got.utterances, got.speakers) == (given.id, given.utterances, given.speakers)
    np.testing.assert_array_equal(got.labels, given.labels)


def test_statistics_are_a_pytree():
    statistics = fit([conversation(5, 0)], WIDTHS)
    leaves, tree = jax.tree.flatten(statistics)
    assert len(leaves) == 2 * len(WIDTHS)
    again = jax.tree.unflatten(tree, leaves)
    assert isinstance(again["text"], Standardization)
    np.testing.assert_array_equal(again["text"].mean, statistics["text"].mean)
