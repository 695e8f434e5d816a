"""COGMEN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

import jax
import numpy as np
import pytest
from plain_torch_networks import batch_with_gaps
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.cogmen import COGMEN, load_parameters, load_statistics
from experiments.benchmarks.plain_torch.convert import to_torch
from jmer import models

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


def plain_model(params, **options):
    model = COGMEN(WIDTHS, **SIZES, **options).double()
    load_parameters(model, params)
    return model


STATISTICS = {"graph_norm": {"mean": np.linspace(-1, 1, 8), "var": np.linspace(0.5, 2, 8)}}


@pytest.mark.parametrize("train", [True, False])
def test_output_loss_gradient_and_statistics_are_those_of_jmer(train):
    batch = batch_with_gaps(3)
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
