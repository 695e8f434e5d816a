"""DialogueRNN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.convert import to_torch
from experiments.benchmarks.plain_torch.dialoguernn import DialogueRNN, load_parameters
from jmer import models
from jmer.data.batching import batches

# On a busy machine, threads that share such small products wait for each other most of the time.
torch.set_num_threads(1)

SIZES = {"num_classes": len(EMOTIONS), "d_g": 6, "d_p": 5, "d_e": 4, "d_h": 3, "speakers": 3}
RATES = ("recurrent_dropout_rate", "emotion_dropout_rate", "dropout_rate")
CLASS_WEIGHTS = (0.5, 2.0, 1.0, 3.0)


@pytest.fixture(scope="module")
def batch():
    """Three conversations of three speakers and one of padding alone."""
    (batch,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=4)
    speakers = np.random.default_rng(0).integers(0, 3, batch.mask.shape)
    return batch.replace(features=float64(batch.features), speakers=np.where(batch.mask, speakers, -1).astype(np.int32))


def plain_model(params, rate=0.0):
    model = DialogueRNN(WIDTHS, **SIZES, **dict.fromkeys(RATES, rate)).double()
    load_parameters(model, params)
    return model


def test_the_batch_has_what_is_hard(batch):
    lengths = batch.mask.sum(1)
    assert lengths[-1] == 0 and len(set(lengths)) == 4
    assert (batch.labels[batch.mask] == -1).any() and not batch.available["text"][batch.mask].all()


def test_output_loss_and_gradient_are_those_of_jmer(batch):
    with jax.enable_x64(True):
        network = models.DialogueRNN(**SIZES, **dict.fromkeys(RATES, 0.0))
        params = float64(draw_parameters(network, batch))

        def objective(params):
            output = network.apply({"params": params}, batch)
            _, total, count = models.CrossEntropyLoss(CLASS_WEIGHTS)(output, batch)["classification"]
            return total / count, output.logits

        (expected, logits), gradient = jax.device_get(jax.jit(jax.value_and_grad(objective, has_aux=True))(params))
    model, tensors = plain_model(params), to_torch(batch)
    output = model(tensors)
    total, _ = CrossEntropyLoss(CLASS_WEIGHTS)(output, tensors)
    total.backward()
    np.testing.assert_allclose(output.logits.detach()[batch.mask], logits[batch.mask], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(total.item(), expected, rtol=1e-9)
    same_gradient = plain_model(gradient)
    for (name, found), expected in zip(model.named_parameters(), same_gradient.parameters(), strict=True):
        np.testing.assert_allclose(found.grad, expected.detach(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_dropout_falls_in_training_alone(batch):
    tensors = to_torch(batch)
    torch.manual_seed(0)
    model = DialogueRNN(WIDTHS, **SIZES).double()
    assert not torch.equal(model(tensors).logits, model(tensors).logits)
    model.eval()
    assert torch.equal(model(tensors).logits, model(tensors).logits)
