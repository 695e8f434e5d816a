"""The laws that every model keeps whatever its equations: what stands in padding, in which row, on how many devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packed import packed
from reference import draw_parameters
from tiny import WIDTHS, start, tiny_corpus

from jmer.config import base_config, with_variants
from jmer.data.batching import batches
from jmer.models import build_model, model_names
from jmer.pipeline import Pipeline

# LFVD, LPGNet, DAG-ERC and SDT keep them in files of their own, in more of their forms.
MODELS = sorted(set(model_names()) - {"lfvd", "lpgnet", "dagerc", "sdt"})
LENGTH = 9


@functools.cache
def corpus():
    return tiny_corpus()


def config_of(name, **changes):
    config = with_variants(base_config(name), "tiny")
    config.update_from_flattened_dict({field.replace("__", "."): value for field, value in changes.items()})
    return config


@functools.cache
def model_of(name):
    return build_model(Pipeline.for_training(config_of(name), corpus()).config)


@functools.cache
def conversations():
    """Six conversations with unlabelled utterances, and some that lack a modality or all of them."""
    return corpus().conversations("train")[:6]


def batch_of(chosen, garbage=0.0, length=LENGTH):
    """Pads conversations; `garbage` is in the features of padding and of what is unavailable, and in other fields."""
    (batch,) = batches(chosen, WIDTHS, batch_size=len(chosen), lengths=(length,))
    features = {m: np.where(batch.available[m][..., None], x, np.float32(garbage)) for m, x in batch.features.items()}
    if garbage:
        batch = batch.replace(
            speakers=np.where(batch.mask, batch.speakers, 1), labels=np.where(batch.mask, batch.labels, 1)
        )
    return batch.replace(features=features)


@functools.cache
def variables_of(name):
    """Random parameters, and running statistics that are not those of the beginning."""
    module, rng = model_of(name).module, np.random.default_rng(1)
    params = draw_parameters(module, batch_of(conversations()), spread=0.2)
    shapes = jax.eval_shape(lambda key: module.init(key, batch_of(conversations())), jax.random.key(0))
    state = jax.tree.map(
        lambda leaf: (1 + 0.5 * rng.random(leaf.shape)).astype(leaf.dtype),
        {kind: values for kind, values in shapes.items() if kind != "params"},
    )
    return {"params": params, **state}


@functools.cache
def program(name):
    """The logits, the loss and its gradient in evaluation mode."""
    model = model_of(name)

    def objective(params, state, batch):
        output = model.module.apply({"params": params, **state}, batch, train=False)
        terms = model.loss_terms(output, batch).values()
        loss = sum((weight * total / jnp.where(count > 0, count, 1) for weight, total, count in terms), jnp.zeros(()))
        return loss, output.logits

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def run(name, batch):
    """Returns loss and gradient, and the logits."""
    state = dict(variables_of(name))
    (loss, logits), gradient = jax.device_get(program(name)(state.pop("params"), state, batch))
    return (loss, gradient), logits


def close(found, expected, rtol=1e-4, atol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected)


def test_conversations_have_what_is_hard():
    batch = batch_of(conversations())
    assert all(not available[batch.mask].all() for available in batch.available.values())
    assert not np.any([batch.available[m] for m in WIDTHS], axis=0)[batch.mask].all()
    assert (batch.labels[batch.mask] == -1).any() and not batch.mask[:, -1].any()
    assert max(len(set(c.speakers)) for c in conversations()) > 1


@pytest.mark.parametrize("name", MODELS)
def test_what_stands_under_masks_does_not_matter(name):
    clean, dirty = (run(name, batch_of(conversations(), garbage)) for garbage in (0.0, 1e4))
    np.testing.assert_array_equal(clean[1][batch_of(conversations()).mask], dirty[1][batch_of(conversations()).mask])
    close(dirty[0], clean[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_rows_may_stand_in_any_order(name):
    order = np.array([3, 0, 5, 1, 4, 2])
    batch = batch_of(conversations())
    expected, logits = run(name, batch)
    found, permuted = run(name, jax.tree.map(lambda x: x[order], batch))
    close(permuted, logits[order])
    close(found, expected)


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_packing_change_neither_logits_nor_loss_nor_gradient(name):
    """Several conversations in a row with padding after them, against rows of their own with less of it."""
    batch = batch_of(conversations())
    expected, logits = run(name, batch)
    rows, lengths = ((1, 2, 4), (0, 5, 3)), batch.mask.sum(1)
    together = packed(batch_of(conversations(), garbage=1e4), rows, length=int(lengths.sum()))
    found, logits_together = run(name, together)
    close(found, expected)
    for row, chosen in zip(logits_together, rows, strict=True):
        begin = 0
        for b in chosen:
            close(row[begin : begin + lengths[b]], logits[b, : lengths[b]])
            begin += lengths[b]


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_stay_finite_at_the_edges(name):
    """Rows of padding alone, of one utterance, without labels, and without any modality, all of one shape."""
    batch = batch_of(conversations())
    nothing = np.zeros_like(batch.mask)
    first = np.arange(LENGTH)[None] < np.array([0, 1, 1, 1, 1, 0])[:, None]
    unlabelled = np.full_like(batch.labels, -1)
    edges = {
        "one utterance": batch.replace(mask=first, labels=np.where(first, np.maximum(batch.labels, 0), -1)),
        "no labels": batch.replace(labels=unlabelled),
        "no modality": batch.replace(available=dict.fromkeys(WIDTHS, nothing)),
        "nothing": batch.replace(mask=nothing, labels=unlabelled, available=dict.fromkeys(WIDTHS, nothing)),
    }
    edges["one utterance"] = edges["one utterance"].replace(
        available={m: there & first for m, there in batch.available.items()}
    )
    for kind, edge in edges.items():
        found, logits = run(name, edge)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, logits))), kind
        if kind == "nothing":
            assert all((leaf == 0).all() for leaf in jax.tree.leaves(found)), kind


@pytest.mark.parametrize("name", MODELS)
def test_trains_the_same_on_any_number_of_devices(name):
    """Dropout, statistics of the batch and terms over the whole batch included."""

    def trained(backend, devices):
        settings = {"training__batch_size": 6, "training__buckets": 1, "optimizer__name": "sgd"}
        rate = {"optimizer__learning_rate": 0.01, "training__parallel": backend, "training__devices": devices}
        run, losses = start(config_of(name, **settings, **rate), corpus()), []
        state = run.state
        for batch in run.batches(3):
            state, metrics = run.step(state, batch)
            losses.append(jax.device_get(metrics))
        assert all(one.finite for one in losses)
        return jax.device_get((state.params, state.model_state)), [(one.loss, one.confusion) for one in losses]

    expected, found = trained("jit", 0), trained("pmap", 4)
    close(found, expected, rtol=1e-4, atol=1e-5)
