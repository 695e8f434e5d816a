"""A batch for the plain PyTorch versions of MMGCN and MM-DFN, and how they are compared with jmer."""

import functools

import jax
import numpy as np
import torch
from reference import draw_parameters, float64
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch.convert import to_torch
from jmer.data.batching import batches

# On a busy machine, threads that share such small products wait for each other most of the time.
torch.set_num_threads(1)

SIZES = {"num_classes": len(EMOTIONS), "d_rnn": 3, "d_graph": 4, "graph_layers": 2}
WEIGHTS = (0.5, 2.0, 1.0, 3.0)


@functools.cache
def batch():
    """Three conversations of three speakers and one of padding alone; utterances lack audio or visual, but not text."""
    (padded,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=4)
    rng = np.random.default_rng(0)
    speakers = np.where(padded.mask, rng.integers(0, 3, padded.mask.shape), -1).astype(np.int32)
    features = {m: np.where(padded.mask[..., None], rng.normal(size=x.shape), 0) for m, x in padded.features.items()}
    available = dict(padded.available) | {"text": padded.mask}
    found = padded.replace(features=features, speakers=speakers, available=available)
    lengths = found.mask.sum(1)
    assert lengths[-1] == 0 and len(set(lengths)) == 4
    assert (found.labels[found.mask] == -1).any() and len(set(found.speakers[found.mask])) == 3
    assert not found.available["audio"][found.mask].all() and not found.available["visual"][found.mask].all()
    return found


def check_equal(network, loss, plain, plain_loss):
    """Compares logits, loss and gradient in float64.

    Args:
      network, loss: jmer's.
      plain: jmer's parameters -> PyTorch's network in float64 with them.
      plain_loss: of its output and the batch.
    """
    with jax.enable_x64(True):
        params = float64(draw_parameters(network, batch()))

        def objective(params):
            output = network.apply({"params": params}, batch())
            _, total, count = loss(output, batch())["classification"]
            return total / count, output.logits

        (expected, logits), gradient = jax.device_get(jax.jit(jax.value_and_grad(objective, has_aux=True))(params))
    model, tensors = plain(params), to_torch(batch())
    output = model(tensors)
    total, terms = plain_loss(output, tensors)
    total.backward()
    np.testing.assert_allclose(output.logits.detach()[batch().mask], logits[batch().mask], rtol=1e-9, atol=1e-12)
    assert terms == {"classification": total}
    np.testing.assert_allclose(total.item(), expected, rtol=1e-9)
    for (name, found), same in zip(model.named_parameters(), plain(gradient).parameters(), strict=True):
        np.testing.assert_allclose(found.grad, same.detach(), rtol=1e-8, atol=1e-12, err_msg=name)


def check_dropout(model):
    """Dropout falls in training alone."""
    torch.manual_seed(0)
    tensors = to_torch(batch())
    assert not torch.equal(model(tensors).logits, model(tensors).logits)
    model.eval()
    assert torch.equal(model(tensors).logits, model(tensors).logits)
