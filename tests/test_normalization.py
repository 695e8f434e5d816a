"""Standardised features: mean 0 and deviation 1 over what is there, zero where nothing is, the same at every use."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jmer.data.corpus import Conversation
from jmer.data.normalization import Standardization, apply, fit
from jmer.data.outliers import Outliers, constant_lines, count_outliers, outlier_lines
from jmer.errors import UserError

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


def with_column(given, values):
    """Returns the conversation with other values in column 1 of the text."""
    text = given.features["text"].copy()
    text[:, 1] = values
    return dataclasses.replace(given, features=given.features | {"text": text})


@pytest.mark.parametrize("kind", ["standard", "none"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-30])  # 0.1 is not exact in binary: its sums carry rounding errors
def test_a_constant_column_is_zero_in_every_split(value, kind):
    base = conversation(2000, 0, share=2)
    training = [with_column(base, value)]
    statistics = fit(training, WIDTHS, kind=kind)
    assert statistics["text"].dropped.tolist() == [False, True, False, False]
    other = [with_column(base, 4000 * np.arange(2000)), with_column(base, value)]
    plain = fit([base], WIDTHS, kind=kind)
    for got, given in zip(apply(training + other, statistics), training + other, strict=True):
        assert (got.features["text"][:, 1] == 0).all()
        (expected,) = apply([given], plain)
        kept = [0, 2, 3]
        np.testing.assert_array_equal(got.features["text"][:, kept], expected.features["text"][:, kept])
    assert count_outliers(training, statistics)["text"] == Outliers()
    assert count_outliers(other[:1], statistics)["text"] == Outliers(dropped=1999 + (value != 0), dropped_columns=1)


def test_rounding_of_a_constant_is_no_signal_and_one_nonzero_value_is():
    base = conversation(2000, 0, share=2)
    rounding = np.where(np.arange(2000) % 2, np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1)))
    assert fit([with_column(base, rounding)], WIDTHS)["text"].dropped[1]
    single = with_column(base, np.arange(2000) == 7)
    statistics = fit([single], WIDTHS)
    assert not statistics["text"].dropped.any()
    assert count_outliers([single, with_column(base, 1)], statistics)["text"] == Outliers()
    assert count_outliers([with_column(base, 2)], statistics)["text"] == Outliers(far=2000, far_columns=1)


def test_values_far_outside_the_range_are_counted_and_clipped_in_every_split():
    base = conversation(500, 0, share=2)
    spiked = with_column(base, np.where(np.arange(500) < 3, 4000, base.features["text"][:, 1]))
    for clip, bound in ((0.0, 1000), (2.5, 2.5)):
        statistics = fit([base], WIDTHS, clip=clip)
        assert count_outliers([base, spiked], statistics) == {
            "text": Outliers(far=3, far_columns=1),
            "audio": Outliers(),
        }
        for got in apply([base, spiked], statistics):
            assert (np.abs(got.features["text"]).max() > bound) == (not clip and got.features["text"].max() > 1000)
        # Clipping comes after the statistics, and changes nothing within the bound.
        free = apply([base], fit([base], WIDTHS))[0].features["text"]
        np.testing.assert_array_equal(
            apply([base], statistics)[0].features["text"], np.clip(free, -bound, bound).astype(np.float32)
        )
    assert outlier_lines("test", count_outliers([spiked], statistics), statistics) == [
        "test: 3 values of text in 1 column lie more than 10 standard deviations outside the training range (clipped "
        "to 2.5 standard deviations)"
    ]


def test_unavailable_values_are_no_outliers():
    base = conversation(40, 0, offset=100)
    assert not base.available["text"].all()
    assert count_outliers([base], fit([base], WIDTHS))["text"] == Outliers()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": -1.0}, "data.clip is -1.0: give a number of standard deviations, or 0 for no clipping"),
        ({"clip": 3.0, "kind": "none"}, "data.clip is 3.0, but data.normalization=none leaves features without"),
    ],
)
def test_a_clip_without_a_meaning_is_refused(options, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        fit([conversation(5, 0)], WIDTHS, **options)


def test_large_offsets_keep_their_precision():
    base = conversation(5000, 0, share=2)
    far = dataclasses.replace(base, features={m: x + np.float32(4096) for m, x in base.features.items()})
    statistics = fit([far], WIDTHS)
    for m in WIDTHS:
        np.testing.assert_allclose(statistics[m].scale, far.features[m].astype(np.float64).std(0), rtol=1e-6)


def test_a_modality_that_nobody_has_in_training_is_absent_everywhere():
    nothing, something = conversation(5, 0, share=-1), conversation(5, 0, share=2)
    statistics = fit([nothing], WIDTHS)
    for got in apply([nothing, something], statistics):
        assert not got.features["audio"].any() and not got.available["audio"].any()
    counts = count_outliers([something], statistics)
    assert counts["audio"] == Outliers(dropped=15, dropped_columns=3)
    assert outlier_lines("test", counts, statistics)[1] == "test: audio is ignored: no training utterance has it"
    assert list(constant_lines(statistics))[1] == "audio: no training utterance has it; it is ignored"


def test_constant_columns_are_named():
    assert list(constant_lines(fit([with_column(conversation(9, 0, share=2), 3)], WIDTHS))) == [
        "text: 1 of 4 columns is constant in training and ignored"
    ]
    assert list(constant_lines(fit([conversation(9, 0)], WIDTHS))) == []


def test_keeps_the_modalities_of_the_statistics_and_everything_else():
    given = conversation(5, 0)
    (got,) = apply([given], fit([given], {"audio": 3}))
    assert list(got.features) == list(got.available) == ["audio"]
    assert (got.id, got.utterances, got.speakers) == (given.id, given.utterances, given.speakers)
    np.testing.assert_array_equal(got.labels, given.labels)


def test_statistics_are_a_pytree():
    statistics = fit([conversation(5, 0)], WIDTHS)
    leaves, tree = jax.tree.flatten(statistics)
    assert len(leaves) == 5 * len(WIDTHS)
    again = jax.tree.unflatten(tree, leaves)
    assert isinstance(again["text"], Standardization)
    np.testing.assert_array_equal(again["text"].mean, statistics["text"].mean)
