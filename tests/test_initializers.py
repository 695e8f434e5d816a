"""Parameters start in PyTorch's bounds, or Flax's."""

import jax
import numpy as np
import pytest
from reference import normal

from jmer.batch import Batch
from jmer.layers.initializers import SCHEMES, FanInUniform, dense, torch_uniform
from jmer.layers.recurrent import BiGRU
from jmer.models import DAGERC, LFVD, SDT, LPGNet


def assert_uniform(x, bound):
    """Within the bound, filling it, and with a uniform's mean and standard deviation."""
    assert np.abs(x).max() <= bound * (1 + 1e-6)
    error = 5 * bound / np.sqrt(x.size)
    np.testing.assert_allclose(x.mean(), 0, atol=error)
    np.testing.assert_allclose(x.std(), bound / np.sqrt(3), atol=error)


def test_a_linear_layer_starts_as_pytorchs(key):
    p = dense(400, 100).init(key(), normal(0, 1, 100))["params"]
    assert p["kernel"].shape == (100, 400)
    assert_uniform(np.asarray(p["kernel"]), 0.1)
    assert_uniform(np.asarray(p["bias"]), 0.1)
    assert "bias" not in dense(4, 5, use_bias=False).init(key(), normal(0, 1, 5))["params"]


def test_kernel_initializers_take_their_bound_from_the_fan_in(key):
    assert_uniform(np.asarray(torch_uniform(key(), (100, 400))), 0.1)
    assert_uniform(np.asarray(FanInUniform(25)(key(), (5000,))), 0.2)


def test_a_gru_starts_as_pytorchs(key):
    p = BiGRU(200).init(key(), normal(0, 1, 2, 30), np.ones((1, 2), bool))["params"]
    assert {name: x.shape for name, x in p.items() if name.startswith("backward")} == {
        "backward_input_kernel": (30, 300),
        "backward_input_bias": (300,),
        "backward_state_kernel": (100, 300),
        "backward_state_bias": (300,),
    }
    for x in p.values():
        assert_uniform(np.asarray(x), 0.1)


def test_flaxs_scheme_has_zero_biases(key):
    p = dense(400, 100, **SCHEMES["lecun_normal"]).init(key(), normal(0, 1, 100))["params"]
    np.testing.assert_array_equal(p["bias"], np.zeros(400))
    np.testing.assert_allclose(np.asarray(p["kernel"]).std(), 0.1, rtol=0.05)


def test_a_bias_does_not_tell_its_fan_in(key):
    assert tuple(SCHEMES) == ("torch_uniform", "lecun_normal")
    with pytest.raises(ValueError, match=r"shape: expected that of a kernel, or a fan_in, got \[16\]"):
        torch_uniform(key(), (16,))


def test_parameters_are_float32(key):
    for scheme in SCHEMES:
        p = dense(4, 3, **SCHEMES[scheme]).init(key(), normal(0, 1, 3))["params"]
        assert {leaf.dtype for leaf in jax.tree.leaves(p)} == {np.dtype(np.float32)}


# Fingerprints of all initial values, recorded before layers took initializers: of PyTorch's scheme and of Flax's.
RECORDED = {
    "dagerc": (DAGERC(4, d_h=6, dag_layers=2, modalities=("text", "audio")), 5.267417, 5.125195),
    "lfvd": (LFVD(4, d_r=8, d_h=6, d_x=8, d_z=3, num_heads=2), 15.245815, 16.507531),
    "lpgnet": (
        LPGNet(
            4,
            d=8,
            num_heads=2,
            attention_dropout_rate=0.2,
            attn_out_proj=True,
            qkv="shared",
            positional="sinusoidal",
            global_compression="channel",
            blocks=2,
            use_multimodal_gate=False,
        ),
        -9.719855,
        -13.928505,
    ),
    "sdt": (SDT(4, d=8, num_heads=2), 9.570773, 5.253489),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", RECORDED)
def test_models_start_as_they_always_have(name, scheme):
    model, *fingerprints = RECORDED[name]
    mask = np.ones((3, 7), bool)
    widths = {"text": 5, "audio": 4, "visual": 3}
    batch = Batch(
        features={m: np.zeros((3, 7, width), np.float32) for m, width in widths.items()},
        mask=mask,
        labels=np.zeros((3, 7), np.int32),
        speakers=np.zeros((3, 7), np.int32),
        available=dict.fromkeys(widths, mask),
    )
    params = jax.jit(model.clone(initialization=scheme).init)(jax.random.key(1), batch)["params"]
    leaves = jax.tree.leaves(params)
    found = sum(np.float64(leaf).reshape(-1) @ np.cos(np.arange(leaf.size) + i) for i, leaf in enumerate(leaves))
    np.testing.assert_allclose(found, fingerprints[list(SCHEMES).index(scheme)], atol=2e-5)
