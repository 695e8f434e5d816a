"""Concordance and listwise preference, against float64 transcriptions of their formulas, and their laws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmer.losses import concordance, concordance_loss, concordance_moments, listwise_preference
from jmer.losses.preference import FORMS

DEVICES = 8


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def labelled(seed, count):
    """Predictions, targets on a scale of tenths, some of which are missing, and a mask; something is under each."""
    predictions, targets = normal(seed, count), np.round(normal([seed, 1], count), 1).astype(np.float32)
    where = np.random.default_rng([seed, 2]).random(count) < 0.8
    targets[np.random.default_rng([seed, 3]).random(count) < 0.2] = np.nan
    predictions[~where | np.isnan(targets)] = np.nan
    return predictions, targets, where


def reference_concordance(x, y):
    x, y = np.float64(x), np.float64(y)
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


# Concordance


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.3, 2), (-1, 0), (1e-3, 50)])
def test_concordance_matches_its_formula(scale, shift):
    predictions, targets, where = labelled(1, 40)
    counts = where & ~np.isnan(targets)
    predictions = scale * predictions + shift
    expected = 1 - reference_concordance(predictions[counts], targets[counts])
    for loss in (concordance_loss, jax.jit(concordance_loss)):
        np.testing.assert_allclose(loss(predictions, targets, where=where), expected, atol=2e-6)


def test_concordance_does_not_lose_its_digits_far_from_zero():
    targets = np.float32(1000 + np.arange(8) / 8)
    predictions = targets + np.float32([0, 1, 0, -1, 0, 1, 0, -1]) / 8
    np.testing.assert_allclose(
        concordance_loss(predictions, targets), 1 - reference_concordance(predictions, targets), atol=1e-4
    )


def test_the_gradient_of_concordance_is_its_own():
    predictions, targets, where = labelled(2, 12)
    counts = where & ~np.isnan(targets)
    gradient = jax.grad(lambda x: concordance_loss(x, targets, where=where))(predictions)
    np.testing.assert_array_equal(gradient[~counts], 0)
    for i in np.flatnonzero(counts):
        ends = [np.float64(predictions) + step * (np.arange(12) == i) for step in (1e-5, -1e-5)]
        high, low = (-reference_concordance(x[counts], targets[counts]) for x in ends)
        np.testing.assert_allclose(gradient[i], (high - low) / 2e-5, atol=1e-5)


def test_sums_of_micro_batches_add_up():
    predictions, targets, where = labelled(3, 30)
    parts = [slice(0, 4), slice(4, 5), slice(5, 30)]
    for centre in (0.0, 0.5):
        moments = sum(
            concordance_moments(predictions[one], targets[one], where=where[one], centre=centre) for one in parts
        )
        np.testing.assert_allclose(
            1 - concordance(moments), concordance_loss(predictions, targets, where=where), atol=1e-6
        )
    counts = where & ~np.isnan(targets)
    x, y = np.float64(predictions[counts]) - 0.5, np.float64(targets[counts]) - 0.5
    np.testing.assert_allclose(moments, [len(x), *(v.sum() for v in (x, y, x * x, y * y, x * y))], rtol=1e-5)


@pytest.mark.parametrize("targets", [[np.nan] * 3, [2, np.nan, np.nan], [0.3, 0.3, 0.3]])
def test_without_anything_to_agree_on_there_is_no_loss_and_no_gradient(targets):
    loss, gradient = jax.value_and_grad(concordance_loss)(normal(4, 3), np.float32(targets))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_constant_predictions_are_drawn_to_the_targets():
    loss, gradient = jax.value_and_grad(concordance_loss)(jnp.zeros(3), jnp.array([-1.0, 0.0, 1.0]))
    assert loss == 1
    assert gradient[0] > 0 > gradient[2]


# Preference


def pairs_of(y, k, margin):
    """Positions of the sorted targets that are k places apart and ordered."""
    return [(r, r + k) for r in range(len(y) - k) if y[r] > y[r + k] and y[r] - y[r + k] >= margin]


def reference_list(s, y, form, weights, margin):
    """Returns the loss of one list and whether anything is compared in it."""
    order = sorted(range(len(y)), key=lambda i: (-y[i], -s[i]))
    s, y = np.float64(s)[order], np.float64(y)[order]
    if form == "listmle":
        rows = [s[r] - np.log(np.exp(s[r:]).sum()) for r in range(len(s))]
        return -sum(rows), len(s) > 1
    if form == "ranknet":
        pairs = list(itertools.chain(*(pairs_of(y, k, margin) for k in range(1, len(y)))))
        return np.mean([np.log1p(np.exp(s[j] - s[i])) for i, j in pairs]) if pairs else 0, bool(pairs)
    total, compared = 0.0, False
    for k, weight in enumerate(weights, 1):
        pairs = pairs_of(y, k, margin)
        powers = [np.exp(s[j] - s[i]) for i, j in pairs]
        if pairs:
            total += weight * (np.mean(np.log1p(powers)) if form == "exact" else np.log(1 + sum(powers)))
            compared |= weight > 0
    return total / sum(weights), compared


def reference_preference(scores, targets, counts, groups, form, weights, margin):
    lists = [np.flatnonzero(counts & (groups == g)) for g in np.unique(groups[counts])]
    found = [reference_list(scores[one], targets[one], form, weights, margin) for one in lists]
    values = [value for value, compared in found if compared]
    return np.mean(values) if values else 0.0


GROUPS = np.random.default_rng(5).integers(0, 4, 24).astype(np.int32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("margin", [0.0, 0.7])
@pytest.mark.parametrize("grouped", [False, True])
def test_preference_matches_its_formula(form, margin, grouped):
    scores, targets, where = labelled(6, 24)
    counts, weights = where & ~np.isnan(targets), (1.0, 0.5, 2.0)
    groups = GROUPS if grouped else np.zeros(24, np.int32)
    expected = reference_preference(scores, targets, counts, groups, form, weights, margin)
    value = listwise_preference(
        scores,
        targets,
        form=form,
        skip_weights=weights,
        margin=margin,
        where=where,
        groups=groups if grouped else None,
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert expected > 0


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_preference_is_its_own(form):
    scores, targets, where = labelled(7, 10)
    counts, groups = where & ~np.isnan(targets), GROUPS[:10] % 2
    options = (form, (1.0, 1.0), 0.0)
    gradient = jax.grad(
        lambda s: listwise_preference(s, targets, form=form, skip_weights=(1.0, 1.0), where=where, groups=groups)
    )(scores)
    np.testing.assert_array_equal(gradient[~counts], 0)
    for i in np.flatnonzero(counts):
        ends = [np.float64(scores) + step * (np.arange(10) == i) for step in (1e-5, -1e-5)]
        high, low = (reference_preference(s, targets, counts, groups, *options) for s in ends)
        np.testing.assert_allclose(gradient[i], (high - low) / 2e-5, atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_preference_does_not_depend_on_the_order_of_the_batch(form):
    scores, targets, where = labelled(8, 24)
    targets = np.round(targets)  # many are the same
    order = np.random.default_rng(9).permutation(24)
    value = listwise_preference(scores, targets, form=form, where=where, groups=GROUPS)
    permuted = listwise_preference(scores[order], targets[order], form=form, where=where[order], groups=GROUPS[order])
    np.testing.assert_allclose(permuted, value, rtol=1e-6)


NOTHING = [(form, targets) for form in FORMS for targets in ([np.nan] * 4, [1, np.nan, np.nan, np.nan])]
# The likelihood of a list knows no ties.
TIES = [(form, [2, 2, 2, 2]) for form in FORMS if form != "listmle"]


@pytest.mark.parametrize(("form", "targets"), [*NOTHING, *TIES])
def test_where_nothing_is_ordered_there_is_no_preference(form, targets):
    loss, gradient = jax.value_and_grad(lambda s: listwise_preference(s, np.float32(targets), form=form))(normal(1, 4))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_scores_have_finite_losses(form):
    scores, targets = np.float32([-1e4, 1e4, 0, 50]), np.float32([4, 3, 2, 1])
    loss, gradient = jax.value_and_grad(lambda s: listwise_preference(s, targets, form=form))(scores)
    assert loss > 1e3
    assert np.isfinite(gradient).all()


def test_lse_is_less_than_the_sum_of_exact():
    scores, targets = normal(10, 30), normal(11, 30)
    exact = listwise_preference(scores, targets, skip_weights=(1.0,))
    lse = listwise_preference(scores, targets, form="lse", skip_weights=(1.0,))
    assert lse < 29 * exact


def test_skips_of_weight_0_are_not_compared():
    scores, targets = normal(12, 9), normal(13, 9)
    near = listwise_preference(scores, targets, skip_weights=(1.0,))
    np.testing.assert_allclose(listwise_preference(scores, targets, skip_weights=(1.0, 0.0, 0.0)), near, rtol=1e-6)
    assert listwise_preference(scores, targets, skip_weights=(0.0, 0.0)) == 0


def test_preference_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="form: expected one of exact, lse, listmle, ranknet, got 'pairs'"):
        listwise_preference(jnp.zeros(3), jnp.zeros(3), form="pairs")
    with pytest.raises(ValueError, match=r"targets: expected float \[3\], got float32 \[4\]"):
        listwise_preference(jnp.zeros(3), jnp.zeros(4))


# Devices


@pytest.mark.parametrize("loss", [concordance_loss, *FORMS])
def test_devices_together_give_the_loss_and_gradient_of_one(loss):
    def value(scores, targets, where, groups, axis=None):
        if loss is concordance_loss:
            return concordance_loss(scores, targets, where=where, axis=axis)
        return listwise_preference(scores, targets, form=loss, where=where, groups=groups, axis=axis)

    data = (*labelled(14, 24), GROUPS)
    one, gradient = jax.value_and_grad(value)(*data)
    split = [x.reshape(DEVICES, -1) for x in data]
    mapped = jax.pmap(lambda *own: jax.value_and_grad(value)(*own, axis="batch"), "batch")
    values, gradients = mapped(*split)
    np.testing.assert_allclose(values, np.full(DEVICES, one), rtol=1e-6)
    np.testing.assert_allclose(gradients.reshape(-1), gradient, rtol=1e-4, atol=1e-6)
    assert np.abs(gradient).max() > 0.01
