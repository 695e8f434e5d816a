"""LPGNet in jmer and in plain PyTorch: one output, one loss, one gradient, and the same running statistics."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, float64
from self_distilled import batch_with_gaps, check_logits, check_step, jmer_step, lacking
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.convert import to_torch
from experiments.benchmarks.plain_torch.lpgnet import LPGNet, load_parameters, load_statistics
from experiments.benchmarks.plain_torch.self_distillation import SelfDistillationLoss
from jmer.modalities import MODALITIES
from jmer.models import lpgnet, self_distillation

C = len(EMOTIONS)
LOSS = {"gamma_task": 1.5, "gamma_hard": 1.0, "gamma_soft": 0.3}
D = 6


@pytest.fixture(scope="module")
def batch():
    return batch_with_gaps()


def plain_model(variables, modalities=("text", "audio"), dtype=torch.float32, **options):
    widths = {m: WIDTHS[m] for m in modalities}
    model = LPGNet(widths, C, SelfDistillationLoss(C, **LOSS), d=D, **options).to(dtype)
    load_parameters(model, variables["params"])
    load_statistics(model, variables["batch_stats"])
    return model


def draw_variables(network, batch):
    """Parameters, and running statistics as after some training."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), batch)["batch_stats"]
    rng = np.random.default_rng(1)
    statistics = jax.tree.map(lambda x: rng.uniform(0.5, 2, x.shape).astype(np.float32), shapes)
    return {"params": draw_parameters(network, batch), "batch_stats": statistics}


def check_against_jmer(modalities, batch):
    """Takes a step in both and compares; returns jmer's, and the statistics that it started from."""
    network = lpgnet.LPGNet(C, modalities, d=D, dropout_rate=0.0)
    variables = float64(draw_variables(network, batch))
    loss = self_distillation.SelfDistillationLoss(**LOSS)
    expected = jmer_step(network, loss, variables["params"], batch, variables["batch_stats"])
    afterwards = {"params": expected.gradient, "batch_stats": expected.statistics}
    model, as_expected = (
        plain_model(tree, modalities, torch.float64, dropout_rate=0.0) for tree in (variables, afterwards)
    )
    check_step(model, as_expected, expected, batch)
    statistics = dict(as_expected.named_buffers())
    for name, found in model.named_buffers():
        np.testing.assert_allclose(found, statistics[name], rtol=1e-9, err_msg=name)
    return expected, variables["batch_stats"]


def test_a_training_step_is_that_of_jmer(batch):
    expected, before = check_against_jmer(("text", "audio"), batch)
    changes = jax.tree.map(lambda a, b: np.abs(a - b).min(), expected.statistics, before)
    assert min(jax.tree.leaves(changes)) > 0


@pytest.mark.slow
def test_a_training_step_with_three_modalities_is_that_of_jmer(batch):
    check_against_jmer(MODALITIES, batch)


def test_a_step_on_one_conversation_with_audio_and_on_no_label_is_that_of_jmer(batch):
    """Paths from and to audio have too few conversations for a variance, and three terms nothing to count."""
    batch = lacking(lacking(batch, "audio", 0), "audio", 1)
    batch = batch.replace(labels=np.full_like(batch.labels, -1))
    expected, before = check_against_jmer(("text", "audio"), batch)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(expected.statistics), strict=True):
        # Within text, within audio, audio to text, text to audio.
        np.testing.assert_array_equal((old == new).all(-1), [False, True, True, True])
    assert expected.terms["task"] == expected.terms["hard_text"] == 0 < expected.terms["soft_text"]


def test_evaluation_is_that_of_jmer(batch):
    network = lpgnet.LPGNet(C, d=D)
    variables = draw_variables(network, batch)
    expected = jax.jit(network.apply)(variables, batch)
    model = plain_model(variables).eval()
    check_logits(model(to_torch(batch)), expected, rtol=1e-5, atol=1e-5)


def test_dropout_falls_in_training_alone(batch):
    torch.manual_seed(0)
    model = LPGNet({m: WIDTHS[m] for m in ("text", "audio")}, C, SelfDistillationLoss(C, **LOSS), d=D)
    tensors = to_torch(batch)
    assert not torch.equal(model(tensors).logits, model(tensors).logits)
    model.eval()
    assert torch.equal(model(tensors).logits, model(tensors).logits)
