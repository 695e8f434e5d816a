"""Classifier-guided modulation: by hand, on any number of devices, with several seeds, and interrupted."""

import contextlib
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from test_early_stopping import interruptions
from test_optimizer import adam
from test_resume import BY_STEP, log, newest
from tiny import EMOTIONS, LINEAR, WIDTHS, Output, mean_square, tiny_corpus, train, train_together

import jmer
from jmer.config import base_config, with_variants
from jmer.errors import UserError
from jmer.models import Encoders, Model, build_model, check_model, encoders_of, expose_encodings, get_spec, model_names
from jmer.models.contract import encoder_widths, example_batch
from jmer.models.encoders import COLLECTION, exposed_encodings
from jmer.pipeline import Pipeline
from jmer.training import create_train_state, make_optimizer, train_step
from jmer.training.initial_weights import named_arrays
from jmer.training.modulation import balance, coefficients, make_modulation

MODALITIES = ("text", "audio", "visual")
# Of the models that come with jmer. The others put features side by side first, or read one modality.
DECLARING = ("lfvd", "lpgnet", "sdt", "concat_mlp", "mmgcn", "mmdfn", "m3net", "graphsmile", "m2fnet_like")


@functools.cache
def corpus():
    return tiny_corpus()


def settings(**changes):
    config = with_variants(base_config("concat_mlp"), "tiny")
    base = {
        "modulation__method": "classifier_guided",
        "optimizer__name": "sgd",
        "optimizer__learning_rate": 0.1,
        "training__batch_size": 4,
        "training__epochs": 3,
        "training__parallel": "jit",
    }
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in (base | changes).items()})
    return config


def begin(config):
    """A pipeline, model, optimizer, modulation and first state."""
    pipeline = Pipeline.for_training(config, corpus())
    model = build_model(pipeline.config)
    optimizer = make_optimizer(config.optimizer, steps=pipeline.schedule.steps)
    modulation = make_modulation(config.modulation, model, pipeline.widths)
    state = create_train_state(model, optimizer, pipeline.widths, config.seed, modulation=modulation)
    return pipeline, model, optimizer, modulation, state


class Like:
    """What `test_resume.newest` asks of a run: its first state and where that lies."""

    def __init__(self, config):
        self.pipeline, _, _, _, self.state = begin(config)
        self.mapping = self
        self.state_sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])


# The coefficients.


@pytest.mark.parametrize(
    ("now", "before", "published", "guarded"),
    [
        # Text has improved most, by four of eight.
        ([0.5, 0.3, 0.2], [0.1, 0.1, 0.0], [0.5, 0.75, 0.75], [0.5, 0.75, 0.75]),
        # One falls back: the sum is small beside what the others gained.
        ([0.5, 0.0, 0.2], [0.1, 0.2, 0.2], [-1.0, 2.0, 1.0], [0.0, 1.0, 1.0]),
        # All fall back.
        ([0.0, 0.1, 0.2], [0.1, 0.2, 0.4], [0.75, 0.75, 0.5], [0.75, 0.75, 0.5]),
        # Nothing changes in the sum.
        ([0.5, 0.0, 0.2], [0.1, 0.4, 0.2], None, [2 / 3, 2 / 3, 2 / 3]),
        ([0.5, 0.5], [0.5, 0.5], None, [0.5, 0.5]),
    ],
)
def test_the_coefficients_and_their_guard(now, before, published, guarded):
    now, before = jnp.float32(now), jnp.float32(before)
    np.testing.assert_allclose(coefficients(now, before), guarded, atol=1e-5)
    if published is not None:
        found = coefficients(now, before, guard="none")
        np.testing.assert_allclose(found, published, atol=1e-5)
        assert float(found.sum()) == pytest.approx(len(published) - 1, abs=1e-5)


def test_the_balance_term_is_finite_where_a_kernel_is_zero():
    kernels = [jnp.ones((3, 2)), jnp.zeros((3, 2))]
    value, gradient = jax.value_and_grad(balance)(jnp.zeros((3, 2)), kernels, jnp.float32([0.3, 0.7]))
    assert float(value) == 0.5 and np.isfinite(gradient).all()


# The whole step, against a transcription.


class ByHand:
    """The modulation's equations in NumPy, for the concat MLP without dropout; the model's own gradient is given."""

    def __init__(self, heads, rho, lam, ema, rate):
        self.heads, self.rho, self.lam, self.ema, self.rate = heads, rho, lam, ema, rate
        self.accuracies, self.pending, self.steps, self.moments = np.zeros(3), 0.0, 0, {}

    def step(self, params, gradient, batch):
        """Returns the modulated gradient, and updates the classifiers."""
        now, head_gradients = [], {}
        for m in MODALITIES:
            there = np.asarray(batch.available[m] & batch.mask & (batch.labels >= 0))
            x, labels = np.asarray(batch.features[m], np.float64)[there], batch.labels[there]
            e = np.maximum(x @ params[f"input_{m}/kernel"] + params[f"input_{m}/bias"], 0)
            h = e @ self.heads[f"{m}_hidden/kernel"] + self.heads[f"{m}_hidden/bias"]
            z = np.maximum(h, 0) @ self.heads[f"{m}_output/kernel"] + self.heads[f"{m}_output/bias"]
            now.append((z.argmax(-1) == labels).mean())
            p = np.exp(z - z.max(-1, keepdims=True))
            dz = (p / p.sum(-1, keepdims=True) - np.eye(z.shape[-1])[labels]) / len(labels)
            dh = dz @ self.heads[f"{m}_output/kernel"].T * (h > 0)
            head_gradients |= {f"{m}_output/kernel": np.maximum(h, 0).T @ dz, f"{m}_output/bias": dz.sum(0)}
            head_gradients |= {f"{m}_hidden/kernel": e.T @ dh, f"{m}_hidden/bias": dh.sum(0)}
        smooth = self.ema * self.accuracies + (1 - self.ema) * np.array(now)
        delta = smooth - self.accuracies
        total = delta.sum() + 1e-8
        b = np.full(3, 2 / 3) if abs(total) < 1e-6 else np.clip((total - delta) / total, 0, 1)
        self.accuracies = smooth
        modulated = dict(gradient)
        modulated["classifier/kernel"] = gradient["classifier/kernel"] + self.lam * self.pending
        w, self.pending = params["classifier/kernel"], 0.0
        for m, one in zip(MODALITIES, b, strict=True):
            for part in ("kernel", "bias"):
                modulated[f"input_{m}/{part}"] = self.rho * one * gradient[f"input_{m}/{part}"]
            v = self.heads[f"{m}_output/kernel"]
            cosine = (v * w).sum() / np.linalg.norm(v) / np.linalg.norm(w)
            slope = v / np.linalg.norm(v) / np.linalg.norm(w) - cosine * w / np.linalg.norm(w) ** 2
            self.pending = self.pending - one * slope / 3
        self.steps += 1
        for name, g in head_gradients.items():
            moments = self.moments.setdefault(name, {})
            self.heads[name] = self.heads[name] + adam(g, moments, self.steps, self.rate)
        return modulated, b


@pytest.mark.parametrize("ema", [0.0, 0.6])
def test_each_step_is_the_transcription_s(ema):
    options = {"model__dropout_rate": 0.0, "modulation__learning_rate": 0.01, "modulation__accuracy_ema": ema}
    config = settings(**options, data__context="mask_unlabelled")
    pipeline, model, optimizer, modulation, state = begin(config)

    def loss(params, batch):
        output = model.module.apply({"params": params}, batch, train=False)
        ((_, total, count),) = model.loss_terms(output, batch).values()
        return total / count

    step = jax.jit(functools.partial(train_step, model=model, optimizer=optimizer, modulation=modulation))
    gradient_of = jax.jit(jax.grad(loss))

    def in_numpy(tree):
        return {name: np.asarray(x, np.float64) for name, x in named_arrays(tree).items()}

    hand = ByHand(in_numpy(state.modulation.heads), 1.3, 0.2, ema, 0.01)
    seen = []
    for batch in itertools.chain.from_iterable(pipeline.train_batches(epoch) for epoch in range(2)):
        params = in_numpy(state.params)
        gradient, b = hand.step(params, in_numpy(gradient_of(state.params, batch)), batch)
        state, metrics = step(state, batch)
        assert metrics.finite and {f"classifier_{m}" for m in MODALITIES} < set(metrics.terms)
        found = in_numpy(state.params)
        for name, g in gradient.items():
            np.testing.assert_allclose(found[name], params[name] - 0.1 * g, rtol=1e-4, atol=1e-6, err_msg=name)
        for name, x in in_numpy(state.modulation.heads).items():
            np.testing.assert_allclose(x, hand.heads[name], rtol=1e-4, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(state.modulation.accuracies, hand.accuracies, rtol=1e-5)
        np.testing.assert_allclose(state.modulation.pending, hand.pending, rtol=1e-4, atol=1e-6)
        seen.append(b)
    assert np.ptp(seen, axis=0).min() > 0.1


def test_the_loss_is_the_model_s_and_without_modulation_nothing_is_carried():
    _, model, optimizer, modulation, state = begin(settings(model__dropout_rate=0.0))
    pipeline, _, _, none, bare = begin(settings(model__dropout_rate=0.0, modulation__method="none"))
    assert none is None and jax.tree.leaves(bare.modulation) == []
    jax.tree.map(np.testing.assert_array_equal, state.params, bare.params)
    batch = next(pipeline.train_batches(0))
    step = functools.partial(train_step, model=model, optimizer=optimizer)
    _, metrics = jax.jit(functools.partial(step, modulation=modulation))(state, batch)
    _, plain = jax.jit(step)(bare, batch)
    assert float(metrics.loss) == pytest.approx(float(plain.loss)) and set(plain.terms) == {"classification"}


# Runs.


def assert_close(workdir, expected, config, **tolerance):
    for row, other in zip(log(workdir), log(expected), strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    like = Like(config)
    (state, _), (other, _) = newest(workdir, like), newest(expected, like)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), state, other)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    parent = tmp_path_factory.mktemp("alone")
    for seed in (0, 1):
        train(settings(seed=seed), corpus(), parent / f"seed{seed}")
    return parent


@pytest.mark.parametrize("devices", [{"training__parallel": "pmap"}, {"training__parallel": "shard_map"} | BY_STEP])
def test_any_number_of_devices_trains_the_same(alone, tmp_path, devices):
    train(settings(**devices), corpus(), tmp_path / "w")
    assert_close(tmp_path / "w", alone / "seed0", settings(), rtol=1e-3, atol=1e-5)


def test_seeds_together_are_what_they_are_alone(alone, tmp_path):
    train_together([settings(seed=seed) for seed in (0, 1)], corpus(), [tmp_path / "seed0", tmp_path / "seed1"])
    for name in ("seed0", "seed1"):
        assert_close(tmp_path / name, alone / name, settings(), rtol=1e-3, atol=1e-5)


def test_a_run_that_is_interrupted_has_the_same_bits(tmp_path, monkeypatch):
    asked = settings(**BY_STEP, training__epochs=2)
    train(asked, corpus(), tmp_path / "whole")
    assert interruptions(monkeypatch, 2, lambda: train(asked, corpus(), tmp_path / "w")) > 1
    assert log(tmp_path / "w") == log(tmp_path / "whole")
    (state, progress), (expected, expected_progress) = (newest(tmp_path / name, Like(asked)) for name in ("w", "whole"))
    assert progress == expected_progress and np.abs(state.modulation.pending).max() > 0
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_a_run_says_what_it_leaves_out_and_can_be_loaded(tmp_path, no_figures):
    lines = []
    changes = {"model__d_f": 12, "training__epochs": 1}
    run = jmer.train(settings(**changes), corpus(), tmp_path / "w", log=lines.append)
    assert (
        "modulation: without the balance term, since the classifier reads 12 numbers and encodings have 16 (text), "
        "16 (audio), 16 (visual)" in lines
    )
    assert {"train/loss", "train/loss_classifier_text"} <= set(run.history[0])
    found = jmer.load_run(tmp_path / "w").evaluate(corpus())
    assert found["test"] == run.scores["test"]
    lines.clear()
    jmer.train(settings(training__epochs=1), corpus(), tmp_path / "v", log=lines.append)
    assert not any(line.startswith("modulation:") for line in lines)


# Models.


def built(name, **changes):
    config = with_variants(base_config(name), "tiny")
    config.model.update(num_classes=len(EMOTIONS), modalities=MODALITIES, **changes)
    return build_model(config)


@pytest.mark.parametrize("name", DECLARING)
def test_a_model_declares_parameters_of_each_encoder_and_no_others(name):
    model = built(name)
    check_model(model, tuple(WIDTHS.items()), False)
    section = base_config(name).modulation.to_dict() | {"method": "classifier_guided", "rho": 1.0, "balance": 0.0}
    modulation = make_modulation(section, model, WIDTHS)
    params = jax.eval_shape(model.init, jax.random.key(0), example_batch(WIDTHS))["params"]
    ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    factors = jnp.float32([2, 3, 5])
    changed = jax.tree_util.tree_map_with_path(
        lambda path, x: modulation._modulated(jax.tree_util.keystr(path, simple=True, separator="/"), x, factors, 0.0),
        ones,
    )
    values = {path: np.unique(x).tolist() for path, x in named_arrays(changed).items()}
    assert values[modulation.encoders.kernel] == [1]
    assert {2.0} | {3.0} | {5.0} <= {number for found in values.values() for number in found}
    # A parameter that has a modality in its name belongs to that one, or to several.
    for path, found in values.items():
        named = [factor for m, factor in zip(MODALITIES, (2, 3, 5), strict=True) if m in path]
        assert found in ([1], named, [2, 3, 5]) or "gru" in path
    widths, inputs = encoder_widths(model, tuple(WIDTHS.items()))
    assert set(widths) == set(MODALITIES) and inputs > 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "lfvd" else pytest.mark.slow) for name in DECLARING]
)
def test_an_encoding_depends_on_its_own_encoder_and_on_no_other(name):
    model = built(name)
    pipeline = Pipeline.for_training(settings(), corpus())
    batch = next(pipeline.train_batches(0))
    batch = batch.replace(available=dict.fromkeys(batch.available, batch.mask))
    variables = dict(jax.jit(model.init)(jax.random.key(0), batch))
    params, encoders = variables.pop("params"), model.spec.encoders(model.module)

    def total(params, weights):
        _, state = model.apply_in_training(params, variables, batch, jax.random.key(1), expose=True)
        encodings = exposed_encodings(state[COLLECTION])
        return sum(w * jnp.sum(jnp.sin(encodings[m])) for m, w in zip(encoders.own, weights, strict=True))

    gradients = jax.jit(jax.vmap(jax.grad(total), (None, 0)))(params, jnp.eye(3))
    reached = dict.fromkeys(encoders.own, False)
    for path, x in named_arrays(gradients).items():
        for i, m in enumerate(encoders.own):
            if encoders.is_stacked(path):
                others = np.delete(np.asarray(x[i]), i, axis=0)
                # An utterance's own part of a predecessor's score cancels.
                unused = path.endswith(("score_bias", "score_query_kernel"))
                assert np.all(others == 0) and (unused or np.any(x[i][i] != 0)), path
            elif encoders.owner(path) == m:
                assert np.all(np.delete(np.asarray(x), i, axis=0) == 0), path
                reached[m] = reached[m] or bool(np.any(x[i] != 0))
    assert all(reached.values())


def test_parameters_that_the_modalities_share_are_nobody_s():
    shared = built("lfvd", dag_shared=True)
    check_model(shared, tuple(WIDTHS.items()), False)
    assert shared.spec.encoders(shared.module).stacked == ()


@pytest.mark.parametrize("name", sorted(set(model_names()) - set(DECLARING) - {"linear", "packed_linear"}))
def test_the_others_refuse_in_one_line(name):
    section = base_config(name).modulation.to_dict() | {"method": "classifier_guided"}
    if get_spec(name).encoders(built(name).module) is None:
        with pytest.raises(UserError, match=f"^modulation.method=classifier_guided needs an encoder .* model {name} "):
            make_modulation(section, built(name), WIDTHS)


MISTAKES = [
    ({"method": "cggm"}, "modulation.method is 'cggm': choose one of none, classifier_guided"),
    ({"guard": "x"}, "modulation.guard is 'x': choose one of clip, none"),
    ({"head": "x"}, "modulation.head is 'x': choose one of mlp, linear"),
    ({"rho": -1.0}, "modulation.rho is -1.0: give a number that is not negative"),
    ({"balance": float("nan")}, "modulation.balance is nan: give a number that is not negative"),
    ({"learning_rate": -1.0}, "modulation.learning_rate is -1.0: give a number that is not negative"),
    ({"accuracy_ema": 1.0}, "modulation.accuracy_ema is 1.0: give a number from 0 that is below 1"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_values_that_do_not_exist_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        jmer.train(
            settings(**{f"modulation__{name}": value for name, value in changes.items()}),
            corpus(),
            tmp_path / "w",
            log=None,
        )
    assert not (tmp_path / "w").exists()


def test_one_modality_has_nothing_to_be_weighed_against(tmp_path):
    with pytest.raises(UserError, match=r"^modulation.method=.* but model.modalities is text: set it to none$"):
        jmer.train(settings(model__modalities=("text",)), corpus(), tmp_path / "w", log=None)


# The contract.


class Exposing(nn.Module):
    """Logits that are linear in all modalities; `fault` is what the declaration gets wrong."""

    num_classes: int = len(EMOTIONS)
    modalities: tuple[str, ...] = MODALITIES
    fault: str = ""

    @nn.compact
    def __call__(self, batch, *, train=False):
        encoded = {m: nn.Dense(3, name=f"input_{m}")(batch.features[m]) for m in self.modalities}
        shown = encoded if self.fault != "nothing exposed" else {}
        expose_encodings(self, {m: x[0] for m, x in shown.items()} if self.fault == "shape" else shown)
        return Output(nn.Dense(self.num_classes, name="classifier")(sum(encoded.values())))


def declared(module):
    good = encoders_of(module, "input_{}/")
    return {
        "no declaration": {"classifier": "kernel"},
        "another modality": Encoders({"text": ("input_text/",)}, good.kernel),
        "no kernel": dataclasses.replace(good, kernel="classifier/bias"),
        "no parameter": dataclasses.replace(good, own=good.own | {"audio": ("sound/",)}),
        "stack": dataclasses.replace(good, stacked=("classifier/bias",)),
    }.get(module.fault, good)


FAULTS = {
    "": None,
    "nothing exposed": r"the module must give expose_encodings the encoding of text, \[B, T, d\], not None",
    "shape": r"the module must give expose_encodings the encoding of text, \[B, T, d\], not \(1, 3\)",
    "no declaration": "encoders must return jmer.models.Encoders or None, not dict",
    "another modality": "encoders name text, but the module has text, audio, visual",
    "no kernel": r"encoders.kernel 'classifier/bias' is no kernel \[d, C\] of the network",
    "no parameter": r"no parameter is that of the encoder of audio: \('sound/',\)",
    "stack": "encoders.stacked has classifier/bias, whose leading axis is not that of the modalities",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_declaration_that_is_wrong_is_one_line(fault):
    spec = dataclasses.replace(LINEAR, name="exposing", module=Exposing, encoders=declared, defaults={}, variants={})
    model = Model(spec, Exposing(fault=fault), mean_square)
    refused = pytest.raises(UserError, match=f"^model 'exposing': {FAULTS[fault]}$") if fault else None
    with refused or contextlib.nullcontext():
        check_model(model, tuple(WIDTHS.items()), False)
