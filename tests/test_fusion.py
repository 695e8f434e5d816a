"""KL-weighted fusion against LFVD's Eqs. 14-17 with both divergences and their logarithms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import normal

from jmer.layers.fusion import WEIGHTINGS, kl_fusion_weights, kl_weighted_fusion
from jmer.layers.gaussian import Gaussian

MODALITIES = ("text", "audio", "visual")


def posteriors(seed=0, shape=(2, 4, 3), spread=1.0):
    def draw(*numbers):
        return spread * normal([seed, *numbers], *shape)

    return {m: Gaussian(draw(i), np.exp(draw(i, 1))) for i, m in enumerate(MODALITIES)}


def pair(gaussian):
    return np.float64(gaussian.mean), np.float64(gaussian.scale)


@pytest.mark.parametrize("dominant", MODALITIES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_match_the_equations(weighting, reduction, dominant):
    given = posteriors()
    weights = kl_fusion_weights(given, dominant=dominant, weighting=weighting, reduction=reduction)
    assert set(weights) == set(MODALITIES) - {dominant}
    for m, w in weights.items():
        expected = reference.fusion_weight(pair(given[dominant]), pair(given[m]), weighting, reduction)
        np.testing.assert_allclose(w, expected, rtol=1e-5, atol=1e-6)


def test_defaults_are_as_printed():
    given = posteriors()
    printed = kl_fusion_weights(given, dominant="text", weighting="sigmoid", reduction="sum")
    jax.tree.map(np.testing.assert_array_equal, kl_fusion_weights(given), printed)


def test_property_4_weights_lie_between_a_half_and_one():
    for seed in range(5):
        for w in kl_fusion_weights(posteriors(seed, (50, 2))).values():
            assert (w > 0.5).all() and (w <= 1).all()
    near = posteriors(0, (4, 2))
    near["audio"] = near["text"].replace(mean=near["text"].mean + 0.1)
    assert (kl_fusion_weights(near)["audio"] < 1).all()
    same = dict.fromkeys(MODALITIES, near["text"])
    for w in kl_fusion_weights(same).values():
        np.testing.assert_array_equal(w, np.full(4, 0.5))


def test_more_disagreement_weighs_more():
    text = posteriors()["text"]
    shifts = [0.0, 0.1, 0.3, 1.0]
    weights = [kl_fusion_weights({"text": text, "audio": text.replace(mean=text.mean + s)})["audio"] for s in shifts]
    assert (np.diff(weights, axis=0) > 0).all()


def test_fusion_adds_what_is_weighted_to_the_dominant_modality():
    features = {m: normal(i, 2, 4, 5) for i, m in enumerate(MODALITIES)}
    weights = {"text": normal(10, 2, 4), "visual": normal(11, 2, 4)}
    fused = kl_weighted_fusion(features, weights, dominant="audio")
    for b, t in np.ndindex(2, 4):
        expected = sum(
            (1 if m == "audio" else np.float64(weights[m][b, t])) * np.float64(x[b, t]) for m, x in features.items()
        )
        np.testing.assert_allclose(fused[b, t], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kl_weighted_fusion({"text": features["text"]}, {}), features["text"])


def test_gradients_reach_both_gaussians():
    """The slope of the printed weight along the means, by finite differences of the transcription."""
    given = posteriors(3, (3,), 0.3)  # far from where the sigmoid saturates
    gradient = jax.grad(lambda p: kl_fusion_weights(p, reduction="mean")["audio"])(given)
    for m in ("text", "audio"):
        expected = []
        for k in range(3):
            values = []
            for sign in (1, -1):
                pairs = {name: pair(given[name]) for name in ("text", "audio")}
                pairs[m][0][k] += sign * 1e-6
                values.append(reference.fusion_weight(pairs["text"], pairs["audio"], reduction="mean"))
            expected.append((values[0] - values[1]) / 2e-6)
        np.testing.assert_allclose(gradient[m].mean, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(gradient["visual"].mean, np.zeros(3))


def test_mistakes_are_named():
    given = posteriors()
    with pytest.raises(ValueError, match="dominant: expected one of text, audio, visual, got 'smell'"):
        kl_fusion_weights(given, dominant="smell")
    with pytest.raises(ValueError, match=r"weighting: expected one of sigmoid, .*, ones, got 'tanh'"):
        kl_fusion_weights(given, weighting="tanh")
    with pytest.raises(ValueError, match="reduction: expected one of sum, mean, got 'max'"):
        kl_fusion_weights(given, reduction="max")
    with pytest.raises(ValueError, match="weights: expected the modalities audio, visual, got audio"):
        kl_weighted_fusion({m: jnp.ones((2, 3)) for m in MODALITIES}, {"audio": jnp.ones(2)})
