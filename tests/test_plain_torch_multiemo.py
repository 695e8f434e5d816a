"""MultiEMO in jmer and in plain PyTorch: one output, the terms of one loss and one gradient, in float64."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch.convert import to_torch
from experiments.benchmarks.plain_torch.multiemo import MultiEMO, MultiEMOLoss, load_parameters
from jmer import models
from jmer.data.batching import batches

# On a busy machine, threads that share such small products wait for each other most of the time.
torch.set_num_threads(1)

SIZES = {"num_classes": len(EMOTIONS), "d": 4, "num_layers": 2, "num_heads": 2, "d_ff": 5, "d_h": 3}
LOSS = {
    "lambda_correlation": 0.3,
    "lambda_contrast": 0.4,
    "lambda_classification": 0.5,
    "alpha": 1.2,
    "focal_gamma": 2.0,
    "tau": 0.7,
    "class_weights": (0.5, 2.0, 1.0, 3.0),
}


@pytest.fixture(scope="module")
def batch():
    """Three conversations of three speakers."""
    (batch,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=3)
    speakers = np.random.default_rng(0).integers(0, 3, batch.mask.shape)
    return batch.replace(features=float64(batch.features), speakers=np.where(batch.mask, speakers, -1).astype(np.int32))


def plain_model(params, **options):
    model = MultiEMO(WIDTHS, 3, **SIZES, **options).double()
    load_parameters(model, params)
    return model


def test_the_batch_has_what_is_hard(batch):
    assert len(set(batch.mask.sum(1))) == 3
    assert (batch.labels[batch.mask] == -1).any() and not batch.available["text"][batch.mask].all()


@pytest.mark.parametrize("options", [{}, {"bidirectional": False, "text_context": False}], ids=["iemocap", "meld"])
def test_output_loss_and_gradient_are_those_of_jmer(batch, options):
    with jax.enable_x64(True):
        network = models.MultiEMO(**SIZES, **options)
        params = float64(draw_parameters(network, batch))

        def objective(params):
            output = network.apply({"params": params}, batch)
            terms = models.MultiEMOLoss(**LOSS)(output, batch)
            means = {name: total / count for name, (_, total, count) in terms.items()}
            return sum(weight * means[name] for name, (weight, _, _) in terms.items()), (means, output.logits)

        (expected, (means, logits)), gradient = jax.device_get(
            jax.jit(jax.value_and_grad(objective, has_aux=True))(params)
        )
    model, tensors = plain_model(params, **options), to_torch(batch)
    output = model(tensors)
    total, terms = MultiEMOLoss(**LOSS)(output, tensors)
    total.backward()
    np.testing.assert_allclose(output.logits.detach()[batch.mask], logits[batch.mask], rtol=1e-9, atol=1e-12)
    assert terms.keys() == means.keys()
    for name, term in terms.items():
        np.testing.assert_allclose(term.item(), means[name], rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(total.item(), expected, rtol=1e-9)
    same_gradient = plain_model(gradient, **options)
    for (name, found), expected in zip(model.named_parameters(), same_gradient.parameters(), strict=True):
        np.testing.assert_allclose(found.grad, expected.detach(), rtol=1e-8, atol=1e-12, err_msg=name)
