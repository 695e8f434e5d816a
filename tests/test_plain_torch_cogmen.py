"""COGMEN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.cogmen import COGMEN, load_parameters, load_statistics
from experiments.benchmarks.plain_torch.convert import to_torch
from jmer import models
from jmer.data.batching import batches

# On a busy machine, threads that share such small products wait for each other most of the time.
torch.set_num_threads(1)

SIZES = {
    "num_classes": len(EMOTIONS),
    "encoder_layers": 2,
    "encoder_width": 14,
    "d_ff": 5,
    "d_h": 4,
    "window_past": 2,
    "window_future": 1,
    "speakers": 2,
    "graph_heads": 2,
}


@pytest.fixture(scope="module")
def batch():
    """Three conversations of three speakers."""
    (batch,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=3)
    speakers = np.random.default_rng(0).integers(0, 3, batch.mask.shape)
    return batch.replace(features=float64(batch.features), speakers=np.where(batch.mask, speakers, -1).astype(np.int32))


def plain_model(params, **options):
    model = COGMEN(WIDTHS, **SIZES, **options).double()
    load_parameters(model, params)
    return model


def test_the_batch_has_what_is_hard(batch):
    assert len(set(batch.mask.sum(1))) == 3
    assert (batch.labels[batch.mask] == -1).any() and not batch.available["text"][batch.mask].all()


STATISTICS = {"graph_norm": {"mean": np.linspace(-1, 1, 8), "var": np.linspace(0.5, 2, 8)}}


@pytest.mark.parametrize("train", [True, False])
def test_output_loss_gradient_and_statistics_are_those_of_jmer(batch, train):
    with jax.enable_x64(True):
        network = models.COGMEN(**SIZES, dropout_rate=0.0)
        params = float64(draw_parameters(network, batch))

        def objective(params):
            variables = {"params": params, "batch_stats": STATISTICS}
            output, updates = network.apply(variables, batch, train=train, mutable="batch_stats")
            _, total, count = models.CrossEntropyLoss()(output, batch)["classification"]
            return total / count, (output.logits, updates["batch_stats"])

        (expected, (logits, updates)), gradient = jax.device_get(
            jax.jit(jax.value_and_grad(objective, has_aux=True))(params)
        )
    model, tensors = plain_model(params, dropout_rate=0.0), to_torch(batch)
    load_statistics(model, STATISTICS)
    model.train(train)
    output = model(tensors)
    total, _ = CrossEntropyLoss()(output, tensors)
    total.backward()
    np.testing.assert_allclose(output.logits.detach()[batch.mask], logits[batch.mask], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(total.item(), expected, rtol=1e-9)
    np.testing.assert_allclose(model.norm.running_mean, updates["graph_norm"]["mean"], rtol=1e-9)
    np.testing.assert_allclose(model.norm.running_var, updates["graph_norm"]["var"], rtol=1e-9)
    same_gradient = plain_model(gradient)
    for (name, found), expected in zip(model.named_parameters(), same_gradient.parameters(), strict=True):
        np.testing.assert_allclose(found.grad, expected.detach(), rtol=1e-9, atol=1e-12, err_msg=name)
