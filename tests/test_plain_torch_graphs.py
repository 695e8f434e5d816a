"""M3NET and GraphSmile in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch import graphsmile, m3net
from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.convert import to_torch
from jmer import models
from jmer.data.batching import batches

# On a busy machine, threads that share such small products wait for each other most of the time.
torch.set_num_threads(1)

C = len(EMOTIONS)
WEIGHTS = (0.5, 2.0, 1.0, 3.0)
SENTIMENTS = ("positive", "negative", "neutral", "negative")
LAMBDAS = {"lambda_emotion": 0.9, "lambda_sentiment": 0.6, "lambda_shift": 0.3, "emotion_sentiments": SENTIMENTS}
STATISTICS = {"text_norm": {"mean": np.linspace(-0.5, 0.5, 6), "var": np.linspace(0.5, 2, 6)}}
M3NET = {"num_classes": C, "d_g": 4, "d_q": 3, "rnn_layers": 2, "hyperedge_layers": 1, "gate_layers": 1, "speakers": 2}
WIDE = M3NET | {"d_g": WIDTHS["text"], "rnn_layers": 1, "hyperedge_layers": 2}
GRAPHSMILE = {
    **{"num_classes": C, "d_h": 4, "window_past": 2, "window_future": 1, "pair_layers": (2, 1, 1), "shift_window": 3}
}
# jmer's class, the file of the plain network, options, jmer's loss, the plain one.
CASES = {
    "m3net": ("M3NET", m3net, M3NET, models.CrossEntropyLoss(WEIGHTS), CrossEntropyLoss(WEIGHTS)),
    "m3net without a projection": ("M3NET", m3net, WIDE, models.CrossEntropyLoss(WEIGHTS), CrossEntropyLoss(WEIGHTS)),
    "graphsmile": (
        "GraphSmile",
        graphsmile,
        GRAPHSMILE,
        models.GraphSmileLoss(**LAMBDAS),
        graphsmile.GraphSmileLoss(**LAMBDAS),
    ),
}


@pytest.fixture(scope="module")
def batch():
    """Three conversations with utterances that lack a modality or a label, and a row of padding alone."""
    (padded,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=4)
    assert not padded.mask.any(1).all() and not padded.available["text"][padded.mask].all()
    return padded.replace(features=float64(padded.features))


@pytest.mark.parametrize("case", CASES)
def test_output_loss_and_gradient_are_those_of_jmer(case, batch):
    name, plain, sizes, loss_of_jmer, loss = CASES[case]
    with jax.enable_x64(True):
        network = getattr(models, name)(**sizes, dropout_rate=0.0)
        params = float64(draw_parameters(network, batch))

        def objective(params):
            output = network.apply({"params": params, "batch_stats": STATISTICS}, batch)
            terms = loss_of_jmer(output, batch).values()
            return sum(weight * total / count for weight, total, count in terms), output.logits

        (expected, logits), gradient = jax.device_get(jax.jit(jax.value_and_grad(objective, has_aux=True))(params))

    def plain_model(params):
        model = getattr(plain, name)(WIDTHS, **sizes, dropout_rate=0.0).double()
        plain.load_parameters(model, params)
        plain.load_statistics(model, STATISTICS)
        return model.eval()

    model, tensors = plain_model(params), to_torch(batch)
    output = model(tensors)
    total, _ = loss(output, tensors)
    total.backward()
    np.testing.assert_allclose(output.logits.detach()[batch.mask], logits[batch.mask], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(total.item(), expected, rtol=1e-9)
    same_gradient = plain_model(gradient)
    for (parameter, found), same in zip(model.named_parameters(), same_gradient.parameters(), strict=True):
        # The weights of edges in GraphSmile's published code are 1 in jmer.
        if not parameter.endswith("edge_weights"):
            np.testing.assert_allclose(found.grad, same.detach(), rtol=1e-9, atol=1e-12, err_msg=parameter)


@pytest.mark.parametrize("case", CASES)
def test_training_draws_dropout_and_takes_statistics_of_the_batch(case, batch):
    name, plain, sizes, _, _ = CASES[case]
    torch.manual_seed(0)
    model, tensors = getattr(plain, name)(WIDTHS, **sizes, dropout_rate=0.5).double(), to_torch(batch)
    before = model.text_norm.running_mean.clone()
    assert not torch.equal(model(tensors).logits, model(tensors).logits)
    assert not torch.equal(model.text_norm.running_mean, before)
    model.eval()
    assert torch.equal(model(tensors).logits, model(tensors).logits)
