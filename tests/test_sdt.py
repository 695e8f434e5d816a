"""SDT against a float64 transcription of its network and its loss, and the laws that hold whatever its parameters."""

import functools
import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from packed import apart, packed
from reference import attention, draw_parameters, float64, linear, one_of, rows_where, sigmoid, softmax
from tiny import defaults, start, tiny_corpus

from jmer.config import base_config
from jmer.data.batching import batches
from jmer.data.corpus import Conversation
from jmer.errors import UserError
from jmer.experiment import change_fields, get_config
from jmer.layers.dropout import ConversationDropout
from jmer.modalities import MODALITIES
from jmer.models import Model, build_model
from jmer.models.sdt import SDT, SPEC
from jmer.models.self_distillation import SelfDistillationLoss, gate_means
from jmer.pipeline import Pipeline
from jmer.training import create_train_state, make_parallel, train_step

WIDTHS = {"text": 6, "audio": 4, "visual": 5}
C = 4
WEIGHTED = SelfDistillationLoss(gamma_task=1.0, gamma_hard=0.7, gamma_soft=0.9, tau=2.0, class_weights=(0.5, 2, 1, 3))


@functools.cache
def conversations():
    """Four conversations of up to three speakers, with utterances that lack a label, a modality or all of them."""
    rng, made = np.random.default_rng(0), []
    for i, speakers in enumerate(("abacb", "a", "bbacab", "aba")):
        n = len(speakers)
        available = {m: np.ones(n, bool) for m in WIDTHS}
        if i == 0:
            available["audio"][2] = available["visual"][3] = False
            for m in WIDTHS:
                available[m][4] = False
        if i == 1:
            available["visual"][:] = False
        if i == 3:
            available["audio"][:] = False
        labels = rng.integers(0, C, n).astype(np.int32)
        labels[n // 2] = -1 if n > 1 else 0
        features = {m: rows_where(available[m], rng.normal(size=(n, w))).astype(np.float32) for m, w in WIDTHS.items()}
        made.append(
            Conversation(f"c{i}", [f"u{j}" for j in range(n)], list(speakers), labels, features, available, [""] * n)
        )
    return made


def batch_of(chosen, garbage=0.0, length=6):
    """Pads conversations; `garbage` fills the features of padding and of what is unavailable."""
    (batch,) = batches(chosen, WIDTHS, batch_size=len(chosen), lengths=(length,))
    features = {m: np.where(batch.available[m][..., None], x, np.float32(garbage)) for m, x in batch.features.items()}
    return batch.replace(features=features)


def take(batch, rows):
    return jax.tree.map(lambda x: x[np.array(rows)], batch)


def small(**options):
    return SDT(**{"num_classes": C, "d": 8, "num_heads": 2, "dropout_rate": 0.0} | options)


@functools.cache
def parameters(model):
    return draw_parameters(model, batch_of(conversations()))


@functools.cache
def forward(model):
    return jax.jit(model.apply)


def predict(model, batch):
    return forward(model)({"params": parameters(model)}, batch)


# The transcription: one conversation at a time, one path, one head and one utterance at a time, nothing padded.


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def feed_forward(p, x):
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]
    return linear(p["outer"], gelu(linear(p["inner"], normed)))


def positions(n, width):
    table = np.zeros((n, width))
    for position, feature in np.ndindex(n, width):
        angle = position / 10000 ** (feature // 2 * 2 / width)
        table[position, feature] = math.cos(angle) if feature % 2 else math.sin(angle)
    return table


def encoder_layer(p, i, target, source, present, heads):
    """The i-th path: what a target reads in a source, and what it makes of it."""

    def project(name, x):
        return np.split(x @ p["attention"][name][i] + p["attention"][f"{name}_bias"][i], heads, axis=1)

    visible = np.broadcast_to(present[None], (len(target), len(source)))
    triples = zip(project("query", target), project("key", source), project("value", source), strict=True)
    read = np.concatenate([attention(*triple, visible)[0] for triple in triples], axis=1)
    x = target + read @ p["attention"]["output"][i] + p["attention"]["output_bias"][i]
    return x + feed_forward(one_of(p["feed_forward"], i), x)


def sdt(p, model, conversation):
    names = [m for m in ("text", "audio", "visual") if m in model.modalities]
    n, there = len(conversation), conversation.available
    numbers = {name: i for i, name in enumerate(dict.fromkeys(conversation.speakers))}
    streams = {}
    for m in names:
        x = streams[m] = rows_where(there[m], np.float64(conversation.features[m])) @ p[f"input_{m}"]["kernel"]
        if model.positional == "sinusoidal":
            x += positions(n, model.d)
        if model.speaker_embedding:
            rows = [min(numbers[name], model.speakers - 1) for name in conversation.speakers]
            x += p["speakers"]["embedding"][rows]

    features, path = {}, itertools.count()
    for k, target in enumerate(names):
        sources = [target] * model.use_intra + [m for m in names if m != target] * model.use_inter
        gated = []
        for source in sources:
            i = next(path)
            x = encoder_layer(p, i, streams[target], streams[source], there[source], model.num_heads)
            if model.unimodal_gate == "learned":
                x = x * sigmoid(x @ p["reduction"]["unimodal"]["gate"]["kernel"][i])
            elif model.unimodal_gate == "identity":
                x = x * sigmoid(x)
            gated.append(x)
        reduced = linear(one_of(p["reduction"]["reduction"], k), np.concatenate(gated, axis=1))
        features[target] = rows_where(there[target], reduced)

    out = {"features": features, "gates": {}, "unimodal_logits": {}}
    if len(names) == 1:
        out["fused"] = features[names[0]]
    else:
        out["gates"] = {m: np.zeros((n, model.d)) for m in names}
        out["fused"] = np.zeros((n, model.d))
        for i in range(n):
            here = [m for m in names if there[m][i]]
            for f in range(model.d) if here else ():
                scores = np.array([features[m][i] @ p["fusion"]["gate"]["kernel"][:, f] for m in here])
                for m, weight in zip(here, softmax(scores), strict=True):
                    out["gates"][m][i, f] = weight
                    out["fused"][i, f] += weight * features[m][i, f]
        for k, m in enumerate(names):
            out["unimodal_logits"][m] = linear(one_of(p["heads"]["unimodal"], k), np.maximum(features[m], 0))
    out["logits"] = linear(p["heads"]["fused"], out["fused"])
    return out


def objective(p, model, loss, chosen):
    """The loss of a batch: γ1 · task + γ2 · hard labels + γ3 · soft labels, means over the utterances that count."""
    outputs = [sdt(p, model, conversation) for conversation in chosen]

    def mean_cross_entropy(of, counts):
        total = weights = 0.0
        for out, conversation in zip(outputs, chosen, strict=True):
            for logits, label, there in zip(of(out), conversation.labels, counts(conversation), strict=True):
                if there and label >= 0:
                    weight = loss.class_weights[label] if loss.class_weights else 1.0
                    total -= weight * np.log(softmax(logits)[label])
                    weights += weight
        return total / weights

    def mean_divergence(m):
        values = []
        for out, conversation in zip(outputs, chosen, strict=True):
            for i in np.flatnonzero(conversation.available[m]):
                teacher, student = (
                    softmax(out["logits"][i] / loss.tau),
                    softmax(out["unimodal_logits"][m][i] / loss.tau),
                )
                values.append((teacher * np.log(teacher / student)).sum())
        return np.mean(values)

    value = loss.gamma_task * mean_cross_entropy(lambda out: out["logits"], lambda c: np.ones(len(c), bool))
    for m in outputs[0]["unimodal_logits"]:
        hard = mean_cross_entropy(lambda out, m=m: out["unimodal_logits"][m], lambda c, m=m: c.available[m])
        value += loss.gamma_hard * hard + loss.gamma_soft * mean_divergence(m)
    return value


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


def close(found, expected, name, rtol=1e-5, atol=2e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def check_forward(model):
    output = predict(model, batch_of(conversations(), garbage=7.0))
    for b, conversation in enumerate(conversations()):
        n, expected = len(conversation), sdt(float64(parameters(model)), model, conversation)
        for name in ("features", "gates", "unimodal_logits"):
            assert set(getattr(output, name)) == set(expected[name])
            for m, values in expected[name].items():
                close(getattr(output, name)[m][b, :n], values, f"{name} of {m}")
        close(output.fused[b, :n], expected["fused"], "fused")
        close(output.logits[b, :n], expected["logits"], "logits")


TOGETHER = [
    {},
    {"modalities": ("text", "audio"), "num_heads": 4, "unimodal_gate": "identity", "speakers": 3},
    {"modalities": ("audio",), "num_heads": 1, "unimodal_gate": "none"},
    {"use_intra": False, "positional": "none"},
    {"use_inter": False, "speaker_embedding": False},
    {
        "modalities": ("visual", "text"),
        "positional": "none",
        "speaker_embedding": False,
        "initialization": "lecun_normal",
    },
]
ALONE = [
    {"num_heads": 1},
    {"num_heads": 8},
    {"positional": "none"},
    {"speaker_embedding": False},
    {"speakers": 1},
    {"speakers": 4},
    {"use_intra": False},
    {"use_inter": False},
    {"unimodal_gate": "identity"},
    {"unimodal_gate": "none"},
    {"d": 7, "num_heads": 1},
]
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(MODALITIES, size)]


@pytest.mark.parametrize("options", TOGETHER, ids=named)
def test_forward_pass_matches_the_transcription(options):
    check_forward(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("options", ALONE, ids=named)
def test_each_option_matches_the_transcription(options):
    check_forward(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_each_subset_of_modalities_matches_the_transcription(modalities):
    check_forward(small(modalities=modalities))


def total(model, loss, p, batch):
    terms = loss(model.apply({"params": p}, batch), batch)
    return sum(weight * value / jnp.where(count > 0, count, 1) for weight, value, count in terms.values())


@functools.cache
def loss_and_gradient(model, loss=WEIGHTED):
    return jax.jit(jax.value_and_grad(functools.partial(total, model, loss)))


@pytest.mark.parametrize("options", [{}, {"modalities": ("text",), "use_inter": False}], ids=named)
def test_gradients_are_those_of_finite_differences(options):
    """Of the whole objective, in float64, for every parameter along a random direction."""
    model, chosen = small(**options), conversations()
    p = float64(parameters(model))
    with jax.enable_x64(True):
        value, gradients = jax.device_get(loss_and_gradient(model)(p, batch_of(chosen)))
    np.testing.assert_allclose(value, objective(p, model, WEIGHTED, chosen), rtol=1e-6)

    leaves, structure = jax.tree.flatten(p)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(p)]
    rng, step = np.random.default_rng(1), 1e-5
    for i, (name, leaf, gradient) in enumerate(zip(names, leaves, jax.tree.leaves(gradients), strict=True)):
        direction = rng.normal(size=leaf.shape)
        ahead, behind = (
            objective(
                structure.unflatten([*leaves[:i], leaf + s * step * direction, *leaves[i + 1 :]]),
                model,
                WEIGHTED,
                chosen,
            )
            for s in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-7, err_msg=name)
        # A bias of the keys adds the same to all scores of a query.
        assert (np.abs(gradient).max() > 1e-6) == ("key_bias" not in name), name


def count_parameters(model, widths):
    batch = batch_of(conversations())
    features = {m: np.zeros((*batch.mask.shape, width), np.float32) for m, width in widths.items()}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch.replace(features=features))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


def test_the_published_network_has_its_parameters():
    """But for the layer norm that the only layer of each of nine encoders skips, and the embedding of padding."""
    published = 79_687_704
    unused_norms, padding = 9 * 2 * 1024, 1024
    found = count_parameters(SDT(6), {"text": 1024, "audio": 1582, "visual": 342})
    assert found == published - unused_norms - padding == 79_668_248
    # On MELD the unimodal gates are not learnt.
    meld = get_config(CONFIGS["meld"]).model.to_dict() | {"num_classes": 7, "modalities": MODALITIES}
    widths = {"text": 1024, "audio": 300, "visual": 342}
    gates, speakers, inputs, heads = 9 * 1024**2, (9 - 2) * 1024, (1582 - 300) * 1024, 4 * (1024 + 1)
    network = SPEC.build(meld, defaults("sdt")["loss"]).module
    assert count_parameters(network, widths) == found - gates + speakers - inputs + heads == 68_929_564


def test_padding_changes_no_output_and_no_loss():
    model = small()
    short, long = (batch_of(conversations(), length=length) for length in (6, 9))
    one, other = predict(model, short), predict(model, long)
    jax.tree.map(lambda a, b: close(a[short.mask], b[long.mask], "output"), one, other)
    jax.tree.map(
        lambda a, b: close(a, b, "gradient", rtol=1e-4),
        *(loss_and_gradient(model)(parameters(model), batch) for batch in (short, long)),
    )


@pytest.mark.parametrize("garbage", [1e6, np.nan, np.inf])
def test_what_stands_under_masks_does_not_matter(garbage):
    model = small()
    clean, dirty = (batch_of(conversations(), fill, length=9) for fill in (0.0, garbage))
    dirty = dirty.replace(
        speakers=np.where(dirty.mask, dirty.speakers, 5), labels=np.where(dirty.mask, dirty.labels, 1)
    )
    jax.tree.map(
        np.testing.assert_array_equal, *(loss_and_gradient(model)(parameters(model), b) for b in (clean, dirty))
    )
    jax.tree.map(np.testing.assert_array_equal, predict(model, clean), predict(model, dirty))


def test_conversations_do_not_see_each_other():
    model, batch, order = small(), batch_of(conversations()), [2, 0, 3, 1]
    whole, permuted = predict(model, batch), predict(model, take(batch, order))
    jax.tree.map(lambda a, b: close(a[np.array(order)], b, "permuted"), whole, permuted)
    nothing = jax.tree.map(np.zeros_like, batch)
    for b in range(len(conversations())):
        alone = jax.tree.map(lambda x, y, b=b: np.concatenate([x[b : b + 1], y[1:]]), batch, nothing)
        jax.tree.map(lambda a, c, b=b: close(a[b], c[0], "alone"), whole, predict(model, alone))


# Between two others, the first conversation has a neighbour on either side.
ORDER, LONGER = ((3, 0, 1), (2,)), 10


def check_packed(model):
    batch = batch_of(conversations(), np.nan)
    together = packed(batch, ORDER, LONGER)
    jax.tree.map(
        lambda x, y: close(apart(x, together, batch)[batch.mask], y[batch.mask], "output"),
        predict(model, together),
        predict(model, batch),
    )
    loss, gradient = loss_and_gradient(model)(parameters(model), batch)
    found_loss, found_gradient = loss_and_gradient(model)(parameters(model), together)
    close(found_loss, loss, "loss")
    jax.tree.map(lambda x, y: close(x, y, "gradient", rtol=1e-4), found_gradient, gradient)


@pytest.mark.parametrize("options", TOGETHER[:2], ids=named)
def test_conversations_of_one_row_do_not_influence_each_other(options):
    """Outputs, loss and gradients are those of conversations in rows of their own."""
    check_packed(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("options", TOGETHER[2:] + ALONE, ids=named)
def test_conversations_of_one_row_do_not_influence_each_other_in_any_form(options):
    check_packed(small(**options))


def test_without_positions_order_does_not_matter():
    batch = batch_of(conversations())
    order = np.random.default_rng(2).permutation(batch.mask.shape[1])
    moved = jax.tree.map(lambda x: x[:, order] if x.shape[1] == len(order) else x, batch)
    for positional, equal in (("none", True), ("sinusoidal", False)):
        model = small(positional=positional)
        straight, permuted = predict(model, batch).logits[:, order], predict(model, moved).logits
        assert np.allclose(straight[moved.mask], permuted[moved.mask], rtol=1e-4, atol=1e-4) == equal


def test_every_modality_reaches_the_logits_and_an_absent_one_does_not():
    """A modality reaches every utterance; weights of those that are there add up to 1, others have none."""
    model, batch = small(), batch_of(conversations())
    before, there = predict(model, batch), np.any(list(batch.available.values()), axis=0)
    weights = gate_means(before, batch)
    for m in MODALITIES:
        features = batch.features | {
            m: batch.features[m] + np.where(np.arange(6) == 0, 1, 0)[None, :, None].astype("f")
        }
        moved = np.abs(predict(model, batch.replace(features=features)).logits - before.logits).max(-1)
        reached = batch.available[m][:, :1] & there
        assert (moved[reached] > 1e-5).all() and (moved[~reached] == 0).all()
        np.testing.assert_array_equal(weights[m][~batch.available[m]], 0)
    close(sum(weights.values()), there, "weights")
    assert (there != batch.mask).any()


@pytest.mark.parametrize("name", ["all padding", "unlabelled", "no audio", "nothing"])
def test_gradients_stay_finite_at_the_edges(name):
    batch = batch_of(conversations())
    unlabelled, none = np.full_like(batch.labels, -1), np.zeros_like(batch.mask)
    edge = {
        "all padding": jax.tree.map(np.zeros_like, batch).replace(labels=unlabelled),
        "unlabelled": batch.replace(labels=unlabelled),
        "no audio": batch.replace(available=batch.available | {"audio": none}),
        "nothing": batch.replace(available=dict.fromkeys(MODALITIES, none)),
    }[name]
    model = small()
    value, gradient = loss_and_gradient(model)(parameters(model), edge)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    if name == "all padding":
        assert value == 0
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_is_in_every_part_and_knows_the_conversation():
    model, batch, seen = small(dropout_rate=0.4), batch_of(conversations()), {}

    def record(call, arguments, options, context):
        if isinstance(context.module, ConversationDropout):
            seen["/".join(context.module.path)] = arguments[0].shape
            assert context.module.rate == 0.4 and options["train"] is True
            np.testing.assert_array_equal(options["row_ids"], batch.row_ids)
        return call(*arguments, **options)

    apply = functools.partial(model.apply, {"params": parameters(model)}, batch, train=True)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda key: apply(rngs={"dropout": key}), jax.random.key(0))
    assert seen == {
        "ConversationDropout_0": (4, 3, 6, 8),
        "attention/ConversationDropout_0": (4, 9, 2, 6, 6),
        "ConversationDropout_1": (4, 9, 6, 8),
        "feed_forward/ConversationDropout_0": (4, 6, 8),
        "feed_forward/ConversationDropout_1": (4, 6, 8),
        "heads/ConversationDropout_0": (4, 3, 6, 8),
    }


def test_dropout_falls_on_the_inputs_and_on_what_was_read_and_follows_the_conversation(key):
    model, batch, order = small(dropout_rate=0.4), batch_of(conversations()), np.array([2, 0, 3, 1])
    p, streams = parameters(model), {"dropout": key()}
    apply = jax.jit(functools.partial(model.apply, train=True, capture_intermediates=True, mutable="intermediates"))
    output, state = apply({"params": p}, batch, rngs=streams)
    modules = {name: parts for name, parts in state["intermediates"].items() if isinstance(parts, dict)}
    values = {name: parts["__call__"][0] for name, parts in modules.items()}
    speakers = p["speakers"]["embedding"][np.clip(batch.speakers, 0, 1)]
    inputs = [values[f"input_{m}"] + positions(6, 8)[None] + speakers for m in MODALITIES]
    read = [values["attention"][path] for path in model.paths]
    for before, after in ((inputs, values["ConversationDropout_0"]), (read, values["ConversationDropout_1"])):
        before, after = np.stack(before, axis=1), np.asarray(after)
        close(after[after != 0], before[after != 0] / 0.6, "kept", rtol=1e-4)
        assert 0.35 < (after == 0)[before != 0].mean() < 0.45
    permuted, _ = apply({"params": p}, take(batch, order), rngs=streams)
    jax.tree.map(lambda a, b: close(a[order], b, "permuted", rtol=1e-4, atol=1e-4), output, permuted)
    assert not np.allclose(apply({"params": p}, batch, rngs={"dropout": key()})[0].logits, output.logits)


# In training.

STEPS = 6
SETTINGS = {
    "model.d": 8,
    "model.num_heads": 2,
    "model.dropout_rate": 0.3,
    "loss.class_weights": "inverse_freq",
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.05,
    "training.batch_size": 5,
    "training.buckets": 1,
}


@functools.cache
def corpus():
    return tiny_corpus()


def trained(backend, devices):
    """Returns the parameters and the metrics after a short training, dropout and class weights on."""
    config = base_config("sdt")
    config.update_from_flattened_dict(SETTINGS | {"training.parallel": backend, "training.devices": devices})
    run = start(config, corpus())
    state, metrics = run.state, []
    for batch in run.batches(STEPS):
        state, one = run.step(state, batch)
        metrics.append(jax.device_get(one))
    return jax.device_get(state.params), metrics


def stepped(model, batch, backend, devices):
    """Returns the parameters and the metrics after two steps of training on one batch."""
    parallel, optimizer = make_parallel(backend, devices), optax.sgd(0.1)
    step = parallel.step(functools.partial(train_step, model=model, optimizer=optimizer))
    state, metrics = parallel.replicate(create_train_state(model, optimizer, WIDTHS, 0)), []
    for _ in range(2):
        state, one = step(state, batch)
        metrics.append(jax.device_get(one))
    return jax.device_get(state.params), metrics


def test_packed_rows_train_the_same_on_any_number_of_devices():
    """Dropout on, and some devices hold nothing but padding."""
    options = {"num_classes": C, "d": 8, "num_heads": 2, "dropout_rate": 0.3, "modalities": MODALITIES}
    model = SPEC.build(defaults("sdt")["model"] | options, defaults("sdt")["loss"])
    batch = packed(batch_of(conversations(), np.nan), ((3, 1), (2,), (0,)), 8)
    batch = jax.tree.map(lambda x: np.pad(x, [(0, 5)] + [(0, 0)] * (x.ndim - 1)), batch)
    batch = batch.replace(conversation_ids=np.where(batch.mask.any(1)[:, None], batch.conversation_ids, -1))
    (expected, expected_metrics), (params, metrics) = (
        stepped(model, batch, backend, devices) for backend, devices in (("jit", 1), ("shard_map", 8))
    )
    for one, other in zip(metrics, expected_metrics, strict=True):
        assert one.finite
        close(one.loss, other.loss, "loss")
    jax.tree.map(lambda a, b: close(a, b, "parameters", atol=2e-6), params, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "devices"), [("pmap", 2), ("pmap", 8), ("shard_map", 8)])
def test_trains_the_same_on_any_number_of_devices(backend, devices):
    (expected, expected_metrics), (params, metrics) = trained("jit", 0), trained(backend, devices)
    for one, other in zip(metrics, expected_metrics, strict=True):
        assert one.finite
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
        np.testing.assert_array_equal(one.confusion, other.confusion)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), params, expected)
    assert len({float(one.loss) for one in metrics}) == STEPS
    losses = ["task", *(f"{kind}_{m}" for m in MODALITIES for kind in ("hard", "soft"))]
    assert set(metrics[0].terms) == set(losses)


# Configurations.


def test_created_from_its_default_sections():
    sections = defaults("sdt")
    assert sections["model"]["modalities"] == ()
    sections["model"] |= {"num_classes": C, "modalities": ("text", "audio")}
    ones = {"gamma_task": 1.0, "gamma_hard": 1.0, "gamma_soft": 1.0}
    assert SPEC.build(**sections) == Model(SPEC, SDT(C, ("text", "audio")), SelfDistillationLoss(**ones))
    sections["loss"] |= {"class_weight_values": (1.0, 2.0, 3.0, 4.0), "tau": 8.0}
    assert SPEC.build(**sections).loss == SelfDistillationLoss(**ones, tau=8.0, class_weights=(1.0, 2.0, 3.0, 4.0))


CONFIGS = {name: str(Path(__file__).parent.parent / "configs" / f"sdt_{name}.py") for name in ("iemocap", "meld")}


def test_published_hyperparameters():
    iemocap, meld = (get_config(path) for path in CONFIGS.values())
    for config, speakers, gate, tau, weights, rate, size, epochs in (
        (iemocap, 2, "learned", 1.0, "inverse_freq", 1e-4, 16, 150),
        (meld, 9, "identity", 8.0, "none", 5e-6, 8, 50),
    ):
        model, loss = config.model, config.loss
        assert (model.d, model.num_heads, model.dropout_rate, model.speaker_embedding) == (1024, 8, 0.5, True)
        assert (model.speakers, model.unimodal_gate) == (speakers, gate)
        assert (loss.gamma_task, loss.gamma_hard, loss.gamma_soft) == (1.0, 1.0, 1.0)
        assert (loss.tau, loss.class_weights, loss.detach_teacher, loss.kd_tau_squared) == (tau, weights, False, False)
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adam_l2", rate, 1e-5)
        assert (config.training.batch_size, config.training.epochs) == (size, epochs)


# What cannot be.

MISTAKES = [
    ("model.positional", "learned", "unknown positional 'learned'; choose one of sinusoidal, none"),
    ("model.unimodal_gate", "frozen", "unknown unimodal_gate 'frozen'; choose one of learned, identity, none"),
    ("model.initialization", "zeros", "unknown initialization 'zeros'; choose one of torch_uniform, lecun_normal"),
    ("model.modalities", "text,smell", "model.modalities has smell, but corpus 'synthetic-iemocap4' has only text"),
    ("model.modalities", "text,text", "modalities must be some of text, audio, visual, each once"),
    ("model.d", "0", "model.d is 0: give at least 1"),
    ("model.d", "100", "num_heads must divide d, but 8 does not divide 100"),
    ("model.num_heads", "-1", "model.num_heads is -1: give at least 1"),
    ("model.speakers", "0", "model.speakers is 0: give at least 1"),
    ("model.dropout_rate", "1", "dropout_rate must be at least 0 and below 1, not 1.0"),
    ("loss.tau", "0", "tau must be above 0, not 0.0"),
    ("loss.gamma_soft", "-1", "loss.gamma_soft is -1.0: give a number that is not negative"),
    ("loss.class_weights", "balanced", "loss.class_weights is 'balanced': choose one of none, inverse_freq, "),
]


@pytest.mark.parametrize(("field", "value", "expected"), MISTAKES, ids=[f"{f}={v}" for f, v, _ in MISTAKES])
def test_a_configuration_that_cannot_be_is_one_line(field, value, expected):
    config = change_fields(base_config("sdt"), {field: value})
    with pytest.raises(UserError) as refusal:
        build_model(Pipeline.for_training(config, corpus()).config)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, r"modalities must be some of .*, not \(\)"),
        ({"d": 0}, "d must be at least 1, not 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, not 0"),
        ({"speakers": 0}, "speakers must be at least 1, not 0"),
        ({"dropout_rate": -0.1}, "dropout_rate must be at least 0 and below 1, not -0.1"),
        ({"modalities": ("text",), "use_intra": False}, "no path is left for attention within text: set use_intra"),
        ({"use_intra": False, "use_inter": False}, "no path is left for attention within text, audio, visual"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**options).init, jax.random.key(0), batch_of(conversations()))


def test_frames_are_refused():
    batch = batch_of(conversations())
    framed = batch.replace(frames={m: np.ones((*batch.mask.shape, 3), bool) for m in WIDTHS})
    with pytest.raises(ValueError, match="SDT reads one vector per utterance, not frames"):
        small().init(jax.random.key(0), framed)


def test_golden_values():
    """A fixed model on fixed input: numbers that a change of formula, initializer or parameter name would move."""
    model, batch = small(), batch_of(conversations())
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    output = forward(model)(variables, batch)
    found = [*output.logits[0, 0], *output.logits[2, 3, :2], loss_and_gradient(model)(variables["params"], batch)[0]]
    golden = [-0.263351, -0.117968, -0.296553, -0.339057, -0.277866, 0.025931, 4.259079]
    np.testing.assert_allclose(found, golden, rtol=1e-4)
