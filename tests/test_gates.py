"""The dual gates against their formulas in float64."""

import jax
import numpy as np
import pytest

from jmer.layers.gates import MultimodalGate, UnimodalGate


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def modalities(count, seed, *shape):
    names = ("text", "audio", "visual")[:count]
    return {m: normal([seed, i], *shape) for i, m in enumerate(names)}


def reference_multimodal(features, kernel, available):
    """One position and one feature at a time."""
    shape = next(iter(features.values())).shape
    fused, weights = np.zeros(shape), {m: np.zeros(shape) for m in features}
    for i in np.ndindex(*shape[:-1]):
        here = [m for m in features if available[m][i]]
        for k in range(shape[-1] if here else 0):
            powers = {m: np.exp(np.float64(features[m][i]) @ kernel[:, k]) for m in here}
            for m in here:
                weights[m][(*i, k)] = powers[m] / sum(powers.values())
                fused[(*i, k)] += weights[m][(*i, k)] * features[m][(*i, k)]
    return fused, weights


def test_unimodal_gate_matches_the_formula(key):
    x = normal(1, 2, 3, 4)
    gate = UnimodalGate()
    variables = gate.init(key(), x)
    kernel = np.float64(variables["params"]["gate"]["kernel"])
    np.testing.assert_allclose(gate.apply(variables, x), np.float64(x) * sigmoid(np.float64(x) @ kernel), rtol=1e-5)
    assert jax.tree.map(np.shape, variables) == {"params": {"gate": {"kernel": (4, 4)}}}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_multimodal_gate_matches_the_formula(key, count):
    features = modalities(count, 2, 3, 4, 5)
    rng = np.random.default_rng(3)
    some = {m: rng.random((3, 4)) < 0.6 for m in features}
    some["text"][0, 0] = False
    everywhere = {m: np.ones((3, 4), bool) for m in features}
    gate = MultimodalGate()
    variables = gate.init(key(), features)
    assert jax.tree.map(np.shape, variables) == {"params": {"gate": {"kernel": (5, 5)}}}
    kernel = np.float64(variables["params"]["gate"]["kernel"])
    for available, present in ((None, everywhere), (some, some)):
        fused, weights = jax.jit(gate.apply)(variables, features, available)
        expected_fused, expected_weights = reference_multimodal(features, kernel, present)
        np.testing.assert_allclose(fused, expected_fused, rtol=1e-5, atol=1e-6)
        for m in features:
            np.testing.assert_allclose(weights[m], expected_weights[m], rtol=1e-5, atol=1e-6)


def test_two_modalities_are_weighed_by_the_sigmoid_of_their_difference(key):
    features = modalities(2, 4, 6, 5)
    gate = MultimodalGate()
    variables = gate.init(key(), features)
    fused, weights = gate.apply(variables, features)
    text, audio = np.float64(features["text"]), np.float64(features["audio"])
    weight = sigmoid((text - audio) @ np.float64(variables["params"]["gate"]["kernel"]))
    np.testing.assert_allclose(weights["text"], weight, rtol=1e-5)
    np.testing.assert_allclose(fused, weight * text + (1 - weight) * audio, rtol=1e-5, atol=1e-6)


def test_an_absent_modality_leaves_no_trace(key):
    """Neither NaN in an absent modality nor its absence everywhere reaches outputs or gradients."""
    features = modalities(3, 5, 7, 4)
    rng = np.random.default_rng(6)
    available = {m: rng.random(7) < 0.6 for m in features}
    for m in features:
        available[m][:2] = False
    gate = MultimodalGate()
    variables = gate.init(key(), features)

    def total(variables, features):
        return gate.apply(variables, features, available)[0].sum()

    spoilt = {m: np.where(available[m][:, None], x, np.nan).astype(np.float32) for m, x in features.items()}
    call = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    clean = call(variables, features)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    jax.tree.map(np.testing.assert_array_equal, clean, call(variables, spoilt))
    np.testing.assert_array_equal(gate.apply(variables, spoilt, available)[0][:2], 0)


def test_modality_order_and_batching_do_not_matter(key):
    features = modalities(3, 7, 3, 4, 5)
    gate = MultimodalGate()
    variables = gate.init(key(), features)
    fused, _ = gate.apply(variables, features)
    reversed_order, _ = gate.apply(variables, dict(reversed(features.items())))
    np.testing.assert_allclose(reversed_order, fused, rtol=1e-5, atol=1e-6)
    mapped, _ = jax.vmap(lambda x: gate.apply(variables, x))(features)
    np.testing.assert_allclose(mapped, fused, rtol=1e-5, atol=1e-6)
