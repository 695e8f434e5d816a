"""A training step of a self-distilled model in jmer, and whether a PyTorch model with its parameters takes the same."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from reference import float64
from tiny import WIDTHS, tiny_corpus

from experiments.benchmarks.plain_torch.convert import to_torch
from jmer.data.batching import batches


def batch_with_gaps():
    """Three conversations, one without audio, and one of padding; utterances that lack a label or a modality."""
    conversations = tiny_corpus().conversations("train")[:3]
    (batch,) = batches(conversations, WIDTHS, batch_size=4)
    batch = lacking(batch, "audio", 1)
    assert len(set(batch.mask.sum(1))) == 4 and not batch.mask[3].any()
    assert (batch.labels[batch.mask] == -1).any() and (batch.labels[batch.mask] >= 0).any()
    for there in batch.available.values():
        assert there.any() and not there[batch.mask].all()
    return batch


def lacking(batch, modality, row):
    """The batch with a conversation that lacks a modality."""
    features, available = batch.features[modality].copy(), batch.available[modality].copy()
    features[row], available[row] = 0, False
    return batch.replace(
        features={**batch.features, modality: features}, available={**batch.available, modality: available}
    )


class Step(NamedTuple):
    total: Any
    output: Any
    terms: Any
    statistics: Any
    gradient: Any


@functools.cache
def _step(module, loss):
    def objective(params, statistics, batch):
        variables = {"params": params, "batch_stats": statistics}
        output, updated = module.apply(variables, batch, train=True, mutable=["batch_stats"])
        weights, means = {}, {}
        for name, (weight, value, count) in loss(output, batch).items():
            weights[name], means[name] = weight, value / jnp.where(count > 0, count, 1)
        return sum(weights[name] * means[name] for name in means), (output, means, updated)

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def jmer_step(module, loss, params, batch, statistics=None):
    """Returns what a step computes, in float64."""
    with jax.enable_x64(True):
        variables = float64((params, statistics or {}))
        batch = batch.replace(features=float64(batch.features))
        (total, (output, terms, updated)), gradient = jax.device_get(_step(module, loss)(*variables, batch))
    return Step(total, output, terms, updated.get("batch_stats", {}), gradient)


def check_step(model, with_the_gradient, expected, batch):
    """Takes the step in PyTorch, in float64, and compares everything with jmer's.

    `with_the_gradient` is another model, into which jmer's gradient was loaded as parameters are.
    """
    batch = to_torch(batch.replace(features=float64(batch.features)))
    output = model(batch)
    total, terms = model.loss(output, batch)
    total.backward()
    check_logits(output, expected.output, rtol=1e-9, atol=1e-12)
    assert set(terms) == set(expected.terms)
    for name, value in terms.items():
        np.testing.assert_allclose(value.item(), expected.terms[name], rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(total.item(), expected.total, rtol=1e-9, atol=1e-12)
    gradients = dict(with_the_gradient.named_parameters())
    assert sum(x.numel() for x in gradients.values()) == sum(x.size for x in jax.tree.leaves(expected.gradient))
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(
            parameter.grad, gradients[name].detach(), rtol=1e-9, atol=1e-12, err_msg=f"gradient of {name}"
        )


def check_logits(found, expected, **tolerance):
    np.testing.assert_allclose(found.logits.detach(), expected.logits, **tolerance)
    assert set(found.unimodal_logits) == set(expected.unimodal_logits)
    for m, logits in found.unimodal_logits.items():
        np.testing.assert_allclose(logits.detach(), expected.unimodal_logits[m], **tolerance, err_msg=m)
