"""SDT in jmer and in plain PyTorch: one output, one loss and one gradient."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters
from self_distilled import batch_with_gaps, check_logits, check_step, jmer_step
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.convert import to_torch
from experiments.benchmarks.plain_torch.sdt import SDT, load_parameters
from experiments.benchmarks.plain_torch.self_distillation import SelfDistillationLoss
from jmer.modalities import MODALITIES
from jmer.models import sdt, self_distillation

C = len(EMOTIONS)
LOSS = {"gamma_task": 1.0, "gamma_hard": 0.7, "gamma_soft": 0.9, "tau": 2.0, "class_weights": (0.5, 2.0, 1.0, 3.0)}
SIZES = {"d": 6, "num_heads": 2, "speakers": 2}


@pytest.fixture(scope="module")
def batch():
    """As corpora have it, and with three speakers, one too many for the table."""
    batch = batch_with_gaps()
    speakers = np.random.default_rng(0).integers(0, 3, batch.mask.shape)
    return batch.replace(speakers=np.where(batch.mask, speakers, -1).astype(np.int32))


def plain_model(params, modalities=MODALITIES, dtype=torch.float32, **options):
    widths = {m: WIDTHS[m] for m in modalities}
    model = SDT(widths, C, SelfDistillationLoss(C, **LOSS), **SIZES, **options).to(dtype)
    load_parameters(model, params)
    return model


@pytest.mark.parametrize(
    ("gate", "modalities"),
    [("learned", MODALITIES), ("identity", ("audio", "visual"))],
    ids=["learned gates", "identity gates"],
)
def test_a_training_step_is_that_of_jmer(batch, gate, modalities):
    network = sdt.SDT(C, modalities, **SIZES, unimodal_gate=gate, dropout_rate=0.0)
    params = draw_parameters(network, batch)
    expected = jmer_step(network, self_distillation.SelfDistillationLoss(**LOSS), params, batch)
    model, with_the_gradient = (
        plain_model(tree, modalities, torch.float64, learned_gates=gate == "learned", dropout_rate=0.0)
        for tree in (params, expected.gradient)
    )
    check_step(model, with_the_gradient, expected, batch)


def test_evaluation_is_that_of_jmer(batch):
    network = sdt.SDT(C, **SIZES)
    params = draw_parameters(network, batch)
    expected = jax.jit(network.apply)({"params": params}, batch)
    model = plain_model(params).eval()
    check_logits(model(to_torch(batch)), expected, rtol=1e-5, atol=1e-5)


def test_dropout_falls_in_training_alone(batch):
    torch.manual_seed(0)
    model, tensors = SDT(WIDTHS, C, SelfDistillationLoss(C, **LOSS), **SIZES), to_torch(batch)
    assert not torch.equal(model(tensors).logits, model(tensors).logits)
    model.eval()
    assert torch.equal(model(tensors).logits, model(tensors).logits)
