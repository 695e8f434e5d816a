"""The dual gates against their formulas in float64."""

import jax
import numpy as np
import pytest
from reference import draw_parameters, float64

from jmer.layers.gates import GatedReduction, MultimodalGate, UnimodalGate
from jmer.layers.parallel_attention import FOUR_PATHS


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


PATHS = {
    "nine": tuple((source, target) for target in ("text", "audio", "visual") for source in ("text", "audio", "visual")),
    "four": FOUR_PATHS,
    "two that cross": (("audio", "text"), ("text", "audio")),
    "one": (("audio", "audio"),),
}


def contexts_of(paths, seed=8):
    return {path: normal([seed, i], 2, 3, 4) for i, path in enumerate(paths)}


def reference_reduction(p, contexts, gate):
    """One path at a time; a target's paths side by side in the order given, targets in order of appearance."""
    gated = {}
    for i, (path, x) in enumerate(contexts.items()):
        x = np.float64(x)
        pass_on = {
            "learned": lambda x, i=i: sigmoid(x @ p["unimodal"]["gate"]["kernel"][i]),
            "identity": sigmoid,
            "none": np.ones_like,
        }[gate]
        gated[path] = x * pass_on(x)
    targets = list(dict.fromkeys(target for _, target in contexts))
    return {
        target: np.concatenate([x for path, x in gated.items() if path[1] == target], axis=-1)
        @ p["reduction"]["kernel"][m]
        + p["reduction"]["bias"][m]
        for m, target in enumerate(targets)
    }


@pytest.mark.parametrize("paths", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("gate", ["learned", "identity", "none"])
def test_reduction_matches_the_formula(gate, paths):
    module, contexts = GatedReduction(paths, gate), contexts_of(paths)
    p = draw_parameters(module, contexts)
    targets = len({target for _, target in paths})
    shapes = {"reduction": {"kernel": (targets, 4 * len(paths) // targets, 4), "bias": (targets, 4)}}
    shapes |= {"unimodal": {"gate": {"kernel": (len(paths), 4, 4)}}} if gate == "learned" else {}
    assert jax.tree.map(np.shape, p) == shapes
    # As an argument, jit sorts the contexts: the order of the paths says which parameters are whose.
    found = jax.jit(module.apply)({"params": p}, contexts)
    expected = reference_reduction(float64(p), contexts, gate)
    assert set(found) == set(expected)
    for target in expected:
        np.testing.assert_allclose(found[target], expected[target], rtol=1e-5, atol=1e-5)


def test_reduction_starts_as_pytorchs_linear_layers(key):
    contexts = {path: normal(9, 1, 200) for path in FOUR_PATHS}
    p = jax.jit(GatedReduction().init)(key(), contexts)["params"]
    for kernels, fan in ((p["unimodal"]["gate"]["kernel"], 200), (p["reduction"]["kernel"], 400)):
        for kernel in kernels:
            assert 0.98 * fan**-0.5 < np.abs(kernel).max() <= fan**-0.5
        assert len({float(kernel[0, 0]) for kernel in kernels}) == len(kernels)
    assert 0.9 * 400**-0.5 < np.abs(p["reduction"]["bias"]).max() <= 400**-0.5


def test_reduction_refuses_what_it_cannot_do(key):
    contexts = contexts_of(FOUR_PATHS)
    with pytest.raises(ValueError, match=r"^gate: expected one of learned, identity, none, got 'frozen'"):
        GatedReduction(gate="frozen").init(key(), contexts)
    with pytest.raises(ValueError, match=r"^paths: expected the same number to each target, got 2 to text, 1 to audio"):
        GatedReduction(FOUR_PATHS[:3]).init(key(), contexts)
    del contexts["audio", "text"]
    with pytest.raises(ValueError, match=r"^contexts: expected the modalities .*\('audio', 'text'\).*, got "):
        GatedReduction().init(key(), contexts)
