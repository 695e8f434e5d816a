"""A batch for plain PyTorch versions of networks, and how they are compared with jmer."""

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
def batch(rows=4):
    """Three conversations of three speakers, then padding alone; utterances lack audio or visual, but not text."""
    (padded,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=rows)
    rng = np.random.default_rng(0)
    speakers = np.where(padded.mask, rng.integers(0, 3, padded.mask.shape), -1).astype(np.int32)
    features = {m: np.where(padded.mask[..., None], rng.normal(size=x.shape), 0) for m, x in padded.features.items()}
    available = dict(padded.available) | {"text": padded.mask}
    found = padded.replace(features=features, speakers=speakers, available=available)
    lengths = found.mask.sum(1)
    assert lengths[3:].sum() == 0 and len(set(lengths)) == rows
    assert (found.labels[found.mask] == -1).any() and len(set(found.speakers[found.mask])) == 3
    assert not found.available["audio"][found.mask].all() and not found.available["visual"][found.mask].all()
    return found


@functools.cache
def batch_with_gaps(rows):
    """Three conversations of three speakers, and rows of padding alone; utterances may lack any modality."""
    (padded,) = batches(tiny_corpus().conversations("train")[:3], WIDTHS, batch_size=rows)
    speakers = np.random.default_rng(0).integers(0, 3, padded.mask.shape)
    lengths = padded.mask.sum(1)
    assert lengths[3:].sum() == 0 and len(set(lengths)) == rows
    assert (padded.labels[padded.mask] == -1).any() and not padded.available["text"][padded.mask].all()
    return padded.replace(
        features=float64(padded.features), speakers=np.where(padded.mask, speakers, -1).astype(np.int32)
    )


def check_equal(network, loss, plain, plain_loss, rows=4, *, sample=None, rtol=1e-8):
    """Compares logits, terms of the loss, loss and gradient in float64.

    Args:
      network, loss: jmer's.
      plain: jmer's parameters -> PyTorch's network in float64 with them.
      plain_loss: of its output and the batch.
      rows: of the batch; 3 = without one of padding alone.
      sample: another batch; None = that of `batch`.
      rtol: relative tolerance of the gradient.
    """
    sample = batch(rows) if sample is None else sample
    with jax.enable_x64(True):
        params = float64(draw_parameters(network, sample))

        def objective(params):
            output = network.apply({"params": params}, sample)
            terms = loss(output, sample)
            means = {name: total / count for name, (_, total, count) in terms.items()}
            return sum(terms[name][0] * mean for name, mean in means.items()), (output.logits, means)

        step = jax.jit(jax.value_and_grad(objective, has_aux=True))
        (expected, (logits, means)), gradient = jax.device_get(step(params))
    model, tensors = plain(params), to_torch(sample)
    output = model(tensors)
    total, terms = plain_loss(output, tensors)
    total.backward()
    np.testing.assert_allclose(output.logits.detach()[sample.mask], logits[sample.mask], rtol=1e-9, atol=1e-12)
    assert terms.keys() == means.keys()
    for name, mean in means.items():
        np.testing.assert_allclose(terms[name].item(), mean, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(total.item(), expected, rtol=1e-9)
    for (name, found), same in zip(model.named_parameters(), plain(gradient).parameters(), strict=True):
        np.testing.assert_allclose(found.grad, same.detach(), rtol=rtol, atol=1e-12, err_msg=name)


def check_dropout(model, rows=4, *, sample=None):
    """Dropout falls in training alone; see `check_equal` for the batch."""
    torch.manual_seed(0)
    tensors = to_torch(batch(rows) if sample is None else sample)
    assert not torch.equal(model(tensors).logits, model(tensors).logits)
    model.eval()
    assert torch.equal(model(tensors).logits, model(tensors).logits)
