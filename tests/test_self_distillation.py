"""The heads and the loss that SDT and LPGNet share, against their formulas in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import draw_parameters, float64, linear, normal, one_of, softmax

from jmer.batch import Batch
from jmer.modalities import MODALITIES
from jmer.models.lpgnet import SPEC
from jmer.models.self_distillation import (
    SelfDistillationHeads,
    SelfDistillationLoss,
    SelfDistilledOutput,
    gate_means,
)

B, T, C = 4, 5, 3
LENGTHS = np.array([5, 2, 4, 0])
WEIGHTS = (0.5, 2.0, 1.5)


def batch_of():
    """Three conversations and one of padding; unlabelled utterances, and some without audio or without anything."""
    mask = np.arange(T) < LENGTHS[:, None]
    labels = np.random.default_rng(0).integers(0, C, (B, T)).astype(np.int32)
    labels[0, 1] = labels[2, 3] = -1
    available = {m: mask.copy() for m in MODALITIES}
    available["audio"][0, 2] = available["audio"][1] = False
    for m in MODALITIES:
        available[m][2, 0] = False
    return Batch(
        features={},
        mask=mask,
        labels=np.where(mask, labels, -1),
        speakers=np.zeros((B, T), np.int32),
        available=available,
    )


def output_of(modalities=MODALITIES, seed=0):
    """Logits drawn at random, under padding too."""
    return SelfDistilledOutput(
        logits=normal([seed, 9], B, T, C),
        unimodal_logits={m: normal([seed, i], B, T, C) for i, m in enumerate(modalities)},
        features={},
        fused=np.zeros(()),
        gates={},
    )


def transcribed(output, batch, loss):
    """Spec by spec, an utterance at a time: term -> (weight, sum, count)."""

    def cross_entropy(logits, there):
        total = count = 0.0
        for i in np.argwhere(there & (batch.labels >= 0)):
            label = batch.labels[tuple(i)]
            weight = loss.class_weights[label] if loss.class_weights else 1.0
            total -= weight * np.log(softmax(np.float64(logits[tuple(i)]))[label])
            count += weight
        return total, count

    terms = {"task": (loss.gamma_task, *cross_entropy(output.logits, batch.mask))}
    for m, logits in output.unimodal_logits.items():
        there = batch.mask & batch.available[m]
        if loss.gamma_hard:
            terms[f"hard_{m}"] = (loss.gamma_hard, *cross_entropy(logits, there))
        if loss.gamma_soft:
            total = 0.0
            for i in np.argwhere(there):
                teacher = softmax(np.float64(output.logits[tuple(i)]) / loss.tau)
                student = softmax(np.float64(logits[tuple(i)]) / loss.tau)
                total += (teacher * (np.log(teacher) - np.log(student))).sum()
            factor = loss.tau * loss.tau if loss.kd_tau_squared else 1.0
            terms[f"soft_{m}"] = (loss.gamma_soft * factor, total, there.sum())
    return terms


LOSSES = [
    {},
    {"gamma_task": 1.0, "gamma_hard": 0.25, "gamma_soft": 2.0},
    {"gamma_hard": 0.0},
    {"gamma_soft": 0.0},
    {"gamma_hard": 0.0, "gamma_soft": 0.0, "class_weights": WEIGHTS},
    {"tau": 8.0},
    {"tau": 8.0, "kd_tau_squared": True},
    {"tau": 0.5, "detach_teacher": True, "class_weights": WEIGHTS},
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("modalities", [MODALITIES, ("text", "audio"), ()], ids=["three", "two", "one"])
@pytest.mark.parametrize("options", LOSSES, ids=named)
def test_each_term_matches_its_formula(options, modalities):
    output, batch, loss = output_of(modalities), batch_of(), SelfDistillationLoss(**options)
    found, expected = jax.jit(loss)(output, batch), transcribed(output, batch, loss)
    assert set(found) == set(expected)
    for term, (weight, total, count) in expected.items():
        np.testing.assert_allclose(found[term][0], weight, rtol=1e-6)
        np.testing.assert_allclose(found[term][1:], (total, count), rtol=1e-5, err_msg=term)


def test_the_defaults_are_lpgnets():
    loss = SelfDistillationLoss()
    assert (loss.gamma_task, loss.gamma_hard, loss.gamma_soft, loss.tau) == (1.5, 1.0, 0.3, 1.0)
    assert not (loss.detach_teacher or loss.kd_tau_squared or loss.class_weights)


def total(loss, output, batch):
    return sum(weight * value / jnp.maximum(count, 1) for weight, value, count in loss(output, batch).values())


def test_heads_that_agree_have_nothing_to_distil():
    """Whatever the temperature: the divergence is zero, and so is its gradient."""
    batch, logits = batch_of(), 3 * normal(1, B, T, C)
    output = dataclasses.replace(output_of(), logits=logits, unimodal_logits=dict.fromkeys(MODALITIES, logits))
    for tau in (1.0, 8.0):
        loss = SelfDistillationLoss(gamma_task=0.0, gamma_hard=0.0, gamma_soft=1.0, tau=tau)
        value, gradient = jax.jit(jax.value_and_grad(functools.partial(total, loss)))(output, batch)
        np.testing.assert_allclose(value, 0, atol=1e-7)
        for leaf in (gradient.logits, *gradient.unimodal_logits.values()):
            np.testing.assert_allclose(leaf, 0, atol=1e-7)
    # The softmax, not the logits, is what has to agree.
    shifted = dataclasses.replace(output, logits=logits + 5)
    np.testing.assert_allclose(total(loss, shifted, batch), 0, atol=1e-6)
    assert total(loss, dataclasses.replace(output, logits=-logits), batch) > 1e-2


@pytest.mark.parametrize("detach", [False, True])
def test_soft_labels_move_the_fused_head_unless_it_is_detached(detach):
    output, batch = output_of(), batch_of()
    soft = SelfDistillationLoss(gamma_task=0.0, gamma_hard=0.0, gamma_soft=1.0, tau=2.0, detach_teacher=detach)
    gradient = jax.grad(functools.partial(total, soft))(output, batch)
    # Analytically, for one student: d/dteacher = p_t (log(p_t / p_s) − KL) / τ, d/dstudent = (p_s − p_t) / τ.
    teacher_gradient = np.zeros((B, T, C))
    for m, logits in output.unimodal_logits.items():
        there = batch.mask & batch.available[m]
        student_gradient = np.zeros((B, T, C))
        for i in map(tuple, np.argwhere(there)):
            teacher, student = softmax(np.float64(output.logits[i]) / 2), softmax(np.float64(logits[i]) / 2)
            ratio = np.log(teacher / student)
            teacher_gradient[i] += teacher * (ratio - (teacher * ratio).sum()) / 2 / there.sum()
            student_gradient[i] = (student - teacher) / 2 / there.sum()
        np.testing.assert_allclose(gradient.unimodal_logits[m], student_gradient, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        gradient.logits, 0 * teacher_gradient if detach else teacher_gradient, rtol=1e-4, atol=1e-7
    )
    # The task still moves it.
    task = jax.grad(functools.partial(total, SelfDistillationLoss(detach_teacher=detach)))(output, batch)
    assert np.abs(task.logits[batch.mask & (batch.labels >= 0)]).min() > 1e-6


def test_an_absent_modality_is_in_no_term_of_its_own():
    """Whatever its head says where the modality is not there, but the fused head is judged on every utterance."""
    output, batch, loss = output_of(), batch_of(), SelfDistillationLoss(gamma_soft=1.0, class_weights=WEIGHTS)
    value_and_gradient = jax.jit(jax.value_and_grad(functools.partial(total, loss)))
    clean = value_and_gradient(output, batch)
    spoilt = {
        m: np.where(batch.available[m][..., None], x, np.nan).astype(np.float32)
        for m, x in output.unimodal_logits.items()
    }
    logits = np.where(batch.mask[..., None], output.logits, np.nan).astype(np.float32)
    dirty = value_and_gradient(dataclasses.replace(output, logits=logits, unimodal_logits=spoilt), batch)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    nothing = batch.replace(available=batch.available | {"audio": np.zeros((B, T), bool)})
    terms = loss(output, nothing)
    assert terms["hard_audio"][1:] == terms["soft_audio"][1:] == (0, 0)
    np.testing.assert_array_equal(terms["task"], loss(output, batch)["task"])
    assert np.isfinite(total(loss, output, nothing))


def test_terms_add_up_over_devices():
    output, batch, loss = (
        output_of(),
        batch_of(),
        SelfDistillationLoss(class_weights=WEIGHTS, kd_tau_squared=True, tau=3.0),
    )
    output = dataclasses.replace(output, fused=np.zeros(B))
    rows = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (output, batch))
    shares = jax.pmap(lambda *device: loss(*device, axis="d"), axis_name="d", devices=jax.devices()[:2])(*rows)
    for term, (weight, value, count) in loss(output, batch).items():
        np.testing.assert_allclose(shares[term][0], [weight] * 2)
        np.testing.assert_allclose((shares[term][1].sum(), shares[term][2].sum()), (value, count), rtol=1e-5)


def test_wrong_values_are_refused():
    for tau in (0.0, -1.0):
        with pytest.raises(ValueError, match=rf"^tau must be above 0, not {tau}$"):
            SelfDistillationLoss(tau=tau)
    with pytest.raises(ValueError, match=r"^there are 2 class_weights for 3 emotions"):
        SelfDistillationLoss(class_weights=(1.0, 2.0))(output_of(), batch_of())


def test_the_section_of_a_configuration_holds_every_field():
    sections = SPEC.sections()
    model, section = sections["model"] | {"num_classes": C}, sections["loss"]
    fields = {f.name for f in dataclasses.fields(SelfDistillationLoss)}
    assert set(section) == fields | {"class_weight_values"}
    assert section["class_weights"] == "none"
    assert SPEC.build(model, section).loss == SelfDistillationLoss()
    changed = {"gamma_task": 2.0, "gamma_hard": 3.0, "gamma_soft": 4.0, "tau": 5.0}
    changed |= {"detach_teacher": True, "kd_tau_squared": True}
    weighted = {"class_weights": "inverse_freq", "class_weight_values": WEIGHTS}
    loss = SPEC.build(model, section | changed | weighted).loss
    assert dataclasses.asdict(loss) == changed | {"class_weights": WEIGHTS}


# The heads.

WIDTH = 6


def features_of(modalities):
    return {m: normal([2, i], B, T, WIDTH) for i, m in enumerate(modalities)}


def heads(fused, features, **options):
    """The module and its parameters; its heads stand in the order of the features given."""
    module = SelfDistillationHeads(C, tuple(features), **{"dropout_rate": 0.4} | options)
    return module, draw_parameters(module, fused, features)


@pytest.mark.parametrize("modalities", [MODALITIES, ("text", "audio"), ("visual",)], ids="+".join)
def test_heads_match_the_formula(modalities):
    fused, features = normal(3, B, T, WIDTH), features_of(modalities)
    module, p = heads(fused, features)
    shapes = {"fused": {"kernel": (WIDTH, C), "bias": (C,)}}
    if len(modalities) > 1:
        count = len(modalities)
        shapes["unimodal"] = {"kernel": (count, WIDTH, C), "bias": (count, C)}
    assert jax.tree.map(np.shape, p) == shapes
    # As an argument, jit sorts the features.
    logits, unimodal = jax.jit(module.apply)({"params": p}, fused, features)
    p = float64(p)
    np.testing.assert_allclose(logits, linear(p["fused"], np.float64(fused)), rtol=1e-5, atol=1e-6)
    assert set(unimodal) == set(modalities if len(modalities) > 1 else ())
    for i, m in enumerate(modalities if len(modalities) > 1 else ()):
        x = np.maximum(np.float64(features[m]), 0)
        np.testing.assert_allclose(unimodal[m], linear(one_of(p["unimodal"], i), x), rtol=1e-5, atol=1e-6)


def test_heads_drop_unimodal_features_alone(key):
    """With an identity for a kernel the logits are what the dropout lets through."""
    fused, features = normal(4, 50, T, C), {m: np.abs(normal([5, i], 50, T, C)) for i, m in enumerate(MODALITIES)}
    module, p = heads(fused, features)
    p["unimodal"] = {"kernel": np.stack([np.eye(C, dtype=np.float32)] * 3), "bias": np.zeros((3, C), np.float32)}
    apply, streams = functools.partial(module.apply, {"params": p}), {"dropout": key()}
    logits, unimodal = jax.jit(functools.partial(apply, fused, features, train=True))(rngs=streams)
    np.testing.assert_array_equal(logits, apply(fused, features)[0])
    masks = []
    for m in MODALITIES:
        masks.append(np.asarray(unimodal[m]) != 0)
        np.testing.assert_allclose(unimodal[m][masks[-1]], features[m][masks[-1]] / 0.6, rtol=1e-5)
        np.testing.assert_allclose(1 - masks[-1].mean(), 0.4, atol=0.06)
    np.testing.assert_allclose((masks[0] == masks[1]).mean(), 0.4**2 + 0.6**2, atol=0.07)
    row_ids, order = np.arange(50) + 2, np.random.default_rng(6).permutation(50)
    _, there = jax.jit(functools.partial(apply, fused, features, train=True))(row_ids=row_ids, rngs=streams)
    moved = fused[order], {m: x[order] for m, x in features.items()}
    _, found = jax.jit(functools.partial(apply, *moved, train=True))(row_ids=row_ids[order], rngs=streams)
    for m in MODALITIES:
        np.testing.assert_array_equal(found[m], there[m][order])


def test_a_modalitys_weight_is_the_mean_of_its_gate():
    gates = {m: normal([7, i], B, T, WIDTH) for i, m in enumerate(MODALITIES)}
    output = dataclasses.replace(output_of(), gates=gates)
    found = gate_means(output, batch_of())
    for m, weight in found.items():
        np.testing.assert_allclose(weight, gates[m].mean(-1), rtol=1e-6)
    assert set(found) == set(MODALITIES)
    assert gate_means(output_of(), batch_of()) == {}
