"""The concat MLP in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

import jax
import numpy as np
import torch
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch import concat_mlp
from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.convert import to_torch
from jmer import models
from jmer.data.batching import batches

# On a busy machine, threads that share such small products wait for each other most of the time.
torch.set_num_threads(1)

SIZES = {"num_classes": len(EMOTIONS), "d_h": 5, "d_f": 3}
WEIGHTS = (0.5, 2.0, 1.0, 3.0)


def plain_model(params, **options):
    model = concat_mlp.ConcatMLP(WIDTHS, **SIZES, **options).double()
    concat_mlp.load_parameters(model, params)
    return model


def test_output_loss_and_gradient_are_those_of_jmer():
    (batch,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=4)
    batch = batch.replace(features=float64(batch.features))
    with jax.enable_x64(True):
        network = models.ConcatMLP(**SIZES, dropout_rate=0.0)
        params = float64(draw_parameters(network, batch))

        def objective(params):
            output = network.apply({"params": params}, batch)
            _, total, count = models.CrossEntropyLoss(WEIGHTS)(output, batch)["classification"]
            return total / count, output.logits

        (expected, logits), gradient = jax.device_get(jax.jit(jax.value_and_grad(objective, has_aux=True))(params))
    model, tensors = plain_model(params, dropout_rate=0.0), to_torch(batch)
    output = model(tensors)
    total, terms = CrossEntropyLoss(WEIGHTS)(output, tensors)
    total.backward()
    np.testing.assert_allclose(output.logits.detach()[batch.mask], logits[batch.mask], rtol=1e-9, atol=1e-12)
    assert terms == {"classification": total}
    np.testing.assert_allclose(total.item(), expected, rtol=1e-9)
    same_gradient = plain_model(gradient)
    for (name, found), same in zip(model.named_parameters(), same_gradient.parameters(), strict=True):
        np.testing.assert_allclose(found.grad, same.detach(), rtol=1e-9, atol=1e-12, err_msg=name)
