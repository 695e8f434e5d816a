"""LFVD in jmer and in plain PyTorch: one output, one value for each loss term and one gradient, in float64."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch.convert import to_torch
from experiments.benchmarks.plain_torch.lfvd import LFVD, LFVDLoss, load_parameters
from jmer.data.batching import batches
from jmer.modalities import MODALITIES
from jmer.models import lfvd

# On a busy machine, threads that share such small products wait for each other most of the time.
torch.set_num_threads(1)

SIZES = {"num_classes": len(EMOTIONS), "d_r": 6, "d_h": 5, "d_x": 8, "d_z": 3, "num_heads": 2, "dag_layers": 1}
GAMMAS = {"gamma_self": 0.5, "gamma_full": 0.25, "gamma_distillation": 0.1}


@pytest.fixture(scope="module")
def batch():
    """Four conversations of three speakers, one of them without audio, and one of padding alone."""
    conversations = tiny_corpus().conversations("train")[:4]
    (batch,) = batches(conversations, WIDTHS, batch_size=5)
    speakers = np.random.default_rng(0).integers(0, 3, batch.mask.shape)
    batch.available["audio"][0] = False
    return batch.replace(features=float64(batch.features), speakers=np.where(batch.mask, speakers, -1).astype(np.int32))


def plain_model(params, **options):
    model = LFVD(WIDTHS, **SIZES, **options).double()
    load_parameters(model, params)
    return model


def close(found, expected, name):
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11, err_msg=name)


def test_the_batch_has_what_is_hard(batch):
    lengths = batch.mask.sum(1)
    assert sorted(lengths)[0] == 0 and len(set(lengths)) > 2
    assert (batch.labels[batch.mask] == -1).any()
    lacking = [~batch.available[m][batch.mask] for m in MODALITIES]
    assert np.all(lacking, axis=0).any() and np.any(lacking, axis=1).all() and not np.all(lacking, axis=1).any()


def test_outputs_losses_and_gradient_are_those_of_jmer(batch):
    with jax.enable_x64(True):
        network, loss = lfvd.LFVD(**SIZES, dropout_rate=0.0), lfvd.LFVDLoss(**GAMMAS)
        params = float64(draw_parameters(network, batch, spread=0.3))

        def objective(params):
            output = network.apply({"params": params}, batch)
            terms = loss(output, batch)
            means = {name: total / count for name, (_, total, count) in terms.items()}
            return sum(weight * means[name] for name, (weight, _, _) in terms.items()), (output, means)

        step = jax.jit(jax.value_and_grad(objective, has_aux=True))
        (expected, (outputs, means)), gradient = jax.device_get(step(params))
    model, tensors = plain_model(params, dropout_rate=0.0), to_torch(batch)
    output = model(tensors)
    total, terms = LFVDLoss(**GAMMAS)(output, tensors)
    total.backward()

    def real(x):
        return np.asarray(x)[batch.mask]

    output, terms = jax.tree.map(torch.Tensor.detach, (vars(output), terms))
    close(real(output["logits"]), real(outputs.logits), "logits")
    for m in MODALITIES:
        close(real(output["features"][m]), real(outputs.features[m]), f"features of {m}")
        for found, moment in zip(output["posteriors"][m], ("mean", "scale"), strict=True):
            close(real(found), real(getattr(outputs.posteriors[m], moment)), f"{moment} of {m}")
    for m, weights in output["weights"].items():
        close(real(weights), real(outputs.weights[m]), f"weights of {m}")
    assert set(terms) == set(means)
    for name, mean in means.items():
        close(terms[name], mean, name)
    close(total.item(), expected, "total")
    same_gradient = plain_model(gradient)
    for (name, found), expected in zip(model.named_parameters(), same_gradient.parameters(), strict=True):
        close(found.grad, expected.detach(), name)


def test_dropout_falls_in_training_alone(batch):
    tensors = to_torch(batch)
    torch.manual_seed(0)
    model = LFVD(WIDTHS, **SIZES, dropout_rate=0.5).double()
    assert not torch.equal(model(tensors).logits, model(tensors).logits)
    model.eval()
    assert torch.equal(model(tensors).logits, model(tensors).logits)
