"""DAG-ERC against a float64 transcription of its equations, and the laws that hold whatever its parameters."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packed import apart, packed
from reference import dag_encoder, draw_parameters, float64, linear, rows_where, softmax
from tiny import EMOTIONS, WIDTHS, defaults, start, tiny_corpus

from jmer.config import base_config, fit_to_corpus
from jmer.data.batching import batches
from jmer.errors import UserError
from jmer.experiment import change_fields
from jmer.modalities import MODALITIES
from jmer.models import Model, build_model
from jmer.models.dagerc import DAGERC, SPEC, DAGERCLoss, DAGERCOutput
from jmer.pipeline import Pipeline

C = len(EMOTIONS)
WEIGHTED = DAGERCLoss((0.5, 2.0, 1.0, 3.0))
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(MODALITIES, size)]


@functools.cache
def corpus():
    return tiny_corpus()


@functools.cache
def conversations():
    """Four conversations with unlabelled utterances, and some that lack a modality or all of them."""
    return corpus().conversations("train")[:4]


def batch_of(chosen, garbage=0.0, **options):
    """Pads conversations; `garbage` fills the features of padding and of what is unavailable."""
    (batch,) = batches(chosen, WIDTHS, batch_size=len(chosen), **options)
    features = {m: np.where(batch.available[m][..., None], x, np.float32(garbage)) for m, x in batch.features.items()}
    return batch.replace(features=features)


def test_conversations_have_what_is_hard():
    batch = batch_of(conversations())
    lacking = [~batch.available[m][batch.mask] for m in MODALITIES]
    assert np.any(lacking, axis=1).all() and np.all(lacking, axis=0).any()
    assert (batch.labels[batch.mask] == -1).any() and not batch.mask.all()
    assert any(len(set(c.speakers)) > 1 for c in conversations())


def small(**options):
    return DAGERC(
        **{"num_classes": C, "modalities": MODALITIES, "d_h": 5, "dag_layers": 1, "dropout_rate": 0.0} | options
    )


def batch_parameters(model):
    return draw_parameters(model, batch_of(conversations()))


def dagerc(p, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    there, features = conversation.available, conversation.features
    x = [rows_where(there[m], np.float64(features[m])) for m in ("text", "audio", "visual") if m in model.modalities]
    slope = {"linear": 1.0, "leaky_relu": 0.01}[model.score]
    hidden = dag_encoder(
        p["graph"],
        np.concatenate(x, axis=1),
        conversation.speakers,
        layers=model.dag_layers,
        window=model.omega,
        slope=slope,
    )
    for layer in range(1, model.mlp_layers):
        hidden = np.maximum(linear(p[f"hidden_{layer}"], hidden), 0)
    return linear(p["classifier"], hidden)


def cross_entropy(logits, labels, weights=None):
    """Returns the weighted sum over labelled utterances, and the sum of their weights."""
    total = count = 0.0
    for row, label in zip(np.concatenate(logits), np.concatenate(labels), strict=True):
        if label >= 0:
            weight = weights[label] if weights else 1.0
            total -= weight * np.log(softmax(row)[label])
            count += weight
    return total, count


OPTIONS = [
    {},
    {"modalities": ("text",), "dag_layers": 2},
    {"score": "leaky_relu"},
    {"score": "leaky_relu", "omega": 2, "dag_layers": 2},
    {"omega": 3, "mlp_layers": 1},
    {"mlp_layers": 3, "d_h": 4, "initialization": "lecun_normal"},
    {"modalities": ("visual", "text")},
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


def check_forward(model):
    p, batch = batch_parameters(model), batch_of(conversations(), garbage=7.0)
    logits = jax.jit(model.apply)({"params": p}, batch).logits
    for b, conversation in enumerate(conversations()):
        expected = dagerc(float64(p), model, conversation)
        np.testing.assert_allclose(logits[b, : len(expected)], expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_forward_pass_matches_the_equations(options):
    check_forward(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_each_subset_of_modalities_matches_the_equations(modalities):
    check_forward(small(modalities=modalities))


@pytest.mark.parametrize("loss", [DAGERCLoss(), WEIGHTED], ids=["unweighted", "weighted"])
def test_loss_is_the_cross_entropy_of_labelled_utterances(loss):
    batch = batch_of(conversations(), lengths=(12,))
    logits = np.random.default_rng(0).normal(size=(*batch.mask.shape, C)).astype(np.float32)
    ((name, (weight, total, count)),) = loss(DAGERCOutput(logits), batch).items()
    labels = [c.labels for c in conversations()]
    expected = cross_entropy(
        [np.float64(logits[b, : len(row)]) for b, row in enumerate(labels)], labels, loss.class_weights
    )
    assert (name, weight) == ("classification", 1.0)
    np.testing.assert_allclose((total, count), expected, rtol=1e-5)
    assert expected[1] != sum(map(len, labels))


def mean_loss(model, loss, p, batch):
    _, total, count = loss(model.apply({"params": p}, batch), batch)["classification"]
    return total / jnp.maximum(count, 1e-6)


@pytest.mark.parametrize("options", OPTIONS[:4], ids=named)
def test_gradients_are_those_of_finite_differences(options):
    """Of the weighted loss, in float64, for every parameter along a random direction."""
    model, labels = small(**options), [c.labels for c in conversations()]
    p = float64(batch_parameters(model))

    def objective(p):
        total, count = cross_entropy([dagerc(p, model, c) for c in conversations()], labels, WEIGHTED.class_weights)
        return total / count

    with jax.enable_x64(True):
        step = jax.jit(jax.value_and_grad(functools.partial(mean_loss, model, WEIGHTED)))
        value, gradients = jax.device_get(step(p, batch_of(conversations())))
    np.testing.assert_allclose(value, objective(p), rtol=1e-6)

    leaves, structure = jax.tree.flatten(p)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(p)]
    rng, step = np.random.default_rng(1), 1e-5
    for i, (name, leaf, gradient) in enumerate(zip(names, leaves, jax.tree.leaves(gradients), strict=True)):
        direction = rng.normal(size=leaf.shape)
        ahead, behind = (
            objective(structure.unflatten([*leaves[:i], leaf + sign * step * direction, *leaves[i + 1 :]]))
            for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(("score", "silent"), [("linear", True), ("leaky_relu", False)])
def test_linear_scores_give_the_query_no_gradient(score, silent):
    model = small(score=score, dag_layers=2)
    gradients = jax.jit(jax.grad(functools.partial(mean_loss, model, WEIGHTED)))(
        draw_parameters(model, batch_of(conversations()), spread=0.7), batch_of(conversations())
    )
    for layer in ("layer_0", "layer_1"):
        for name in ("score_query_kernel", "score_bias"):
            largest = np.abs(gradients["graph"][layer][name]).max()
            assert largest < 1e-6 if silent else largest > 1e-5
        assert np.abs(gradients["graph"][layer]["score_key_kernel"]).max() > 1e-5


def exchanged(batch, other, utterances):
    """The batch with the other one's utterances at some positions, bool `[T]`."""
    length = len(utterances)
    return jax.tree.map(
        lambda x, y: np.where(utterances.reshape(1, length, *(1,) * (x.ndim - 2)), y, x) if x.ndim > 1 else x,
        batch,
        other,
    )


def test_what_is_said_reaches_later_utterances_and_no_earlier_ones():
    model, batch = small(), batch_of(conversations())
    length = batch.mask.shape[1]
    other = batch_of(corpus().conversations("train")[4:8], lengths=(length,))
    apply, variables = jax.jit(model.apply), {"params": batch_parameters(model)}
    before = apply(variables, batch).logits
    for i in range(length - 1):
        after = apply(variables, exchanged(batch, other, np.arange(length) > i)).logits
        real = batch.mask & (np.arange(length) <= i)
        np.testing.assert_array_equal(after[real], before[real])
    features = exchanged(batch.features, other.features, np.arange(length) == 0)
    after = apply(variables, batch.replace(features=features)).logits
    assert (np.abs(after - before).max((0, 2)) > 1e-4)[: batch.mask.sum(1).min()].all()


def test_padding_changes_no_output_and_no_loss():
    model = small()
    short, long = (batch_of(conversations(), lengths=(length,)) for length in (8, 13))
    assert short.mask.shape[1] < long.mask.shape[1]
    variables = {"params": batch_parameters(model)}
    apply = jax.jit(model.apply)
    one, other = apply(variables, short), apply(variables, long)
    np.testing.assert_allclose(one.logits[short.mask], other.logits[long.mask], rtol=1e-5, atol=1e-6)
    step = jax.jit(jax.value_and_grad(functools.partial(mean_loss, model, WEIGHTED)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        step(variables["params"], short),
        step(variables["params"], long),
    )


@pytest.mark.parametrize("options", OPTIONS[:4], ids=named)
def test_conversations_of_one_row_do_not_influence_each_other(options):
    """Logits, loss and gradients are those of the conversations in rows of their own."""
    model, batch = small(**options), batch_of(conversations())
    together, p, apply = packed(batch, ((1, 2, 3), (0,)), length=20), batch_parameters(model), jax.jit(model.apply)
    found, expected = apply({"params": p}, together).logits, apply({"params": p}, batch).logits
    real = np.where(batch.mask[..., None], expected, 0)
    np.testing.assert_allclose(apart(found, together, batch), real, rtol=1e-5, atol=1e-6)
    step = jax.jit(jax.value_and_grad(functools.partial(mean_loss, model, WEIGHTED)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), step(p, together), step(p, batch))


@pytest.mark.parametrize("garbage", [1e6, np.nan])
def test_what_stands_under_masks_does_not_matter(garbage):
    model = small()
    step = jax.jit(jax.value_and_grad(functools.partial(mean_loss, model, WEIGHTED)))
    p, options = batch_parameters(model), {"lengths": (12,)}
    clean, dirty = (batch_of(conversations(), fill, **options) for fill in (0.0, garbage))
    dirty = dirty.replace(
        speakers=np.where(dirty.mask, dirty.speakers, 0), labels=np.where(dirty.mask, dirty.labels, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, step(p, clean), step(p, dirty))


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    batch = batch_of(conversations())
    model, batch = small(), batch.replace(labels=np.full_like(batch.labels, -1))
    step = jax.jit(jax.value_and_grad(functools.partial(mean_loss, model, WEIGHTED)))
    value, gradients = step(batch_parameters(model), batch)
    assert value == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))


def test_other_modalities_are_not_looked_at():
    """On a corpus with three modalities, a model of text alone is that of a corpus with text alone."""
    model, batch = small(modalities=DAGERC(C).modalities), batch_of(conversations())
    assert model.modalities == ("text",)
    p = batch_parameters(model)
    alone = batch.replace(features={"text": batch.features["text"]}, available={"text": batch.available["text"]})
    logits = model.apply({"params": p}, batch).logits
    np.testing.assert_array_equal(logits, model.apply({"params": p}, alone).logits)


def test_modalities_stand_side_by_side_in_one_order():
    batch, one, other = batch_of(conversations()), small(), small(modalities=("visual", "text", "audio"))
    variables = {"params": batch_parameters(one)}
    np.testing.assert_array_equal(one.apply(variables, batch).logits, other.apply(variables, batch).logits)
    assert variables["params"]["graph"]["input"]["kernel"].shape == (sum(WIDTHS.values()), 5)


def test_dropout_falls_before_the_classifier_and_follows_the_conversation(key):
    model, batch = small(dropout_rate=0.4), batch_of(conversations())
    order, streams = np.array([2, 0, 3, 1]), {"dropout": key()}
    variables = {"params": batch_parameters(model)}
    apply = jax.jit(functools.partial(model.apply, train=True, capture_intermediates=True, mutable="intermediates"))
    output, seen = apply(variables, batch, rngs=streams)
    permuted, _ = apply(variables, jax.tree.map(lambda x: x[order], batch), rngs=streams)
    np.testing.assert_allclose(output.logits[order], permuted.logits, rtol=1e-5, atol=1e-6)
    (before,), (after,) = (seen["intermediates"][name]["__call__"] for name in ("hidden_1", "ConversationDropout_0"))
    kept = np.maximum(before, 0) / 0.6
    assert ((after == 0) | np.isclose(after, kept)).all()
    dropped = (np.asarray(after) == 0)[kept > 0].mean()
    assert 0.25 < dropped < 0.55
    assert not np.allclose(apply(variables, batch, rngs={"dropout": key()})[0].logits, output.logits)


# In training.

STEPS = 6
SETTINGS = {
    "model.modalities": (),
    "model.d_h": 6,
    "model.dag_layers": 1,
    "loss.class_weights": "inverse_freq",
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "optimizer.clip_norm": 5.0,
    "training.batch_size": 5,
    "training.buckets": 1,
}


@functools.cache
def trained(backend, devices):
    """Returns the state and the metrics after a short training, dropout and class weights on."""
    config = base_config("dagerc")
    config.update_from_flattened_dict(SETTINGS | {"training.parallel": backend, "training.devices": devices})
    run = start(config, corpus())
    state, metrics = run.state, []
    for batch in run.batches(STEPS):
        state, one = run.step(state, batch)
        metrics.append(jax.device_get(one))
    return jax.device_get(state.params), metrics


@pytest.mark.parametrize(("backend", "devices"), [("pmap", 2), ("shard_map", 8)])
def test_trains_the_same_on_any_number_of_devices(backend, devices):
    (expected, expected_metrics), (params, metrics) = trained("jit", 0), trained(backend, devices)
    for one, other in zip(metrics, expected_metrics, strict=True):
        assert one.finite
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
        np.testing.assert_array_equal(one.confusion, other.confusion)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), params, expected)
    assert len({float(one.loss) for one in metrics}) == STEPS


# What cannot be.


def test_created_from_its_default_sections():
    sections = defaults("dagerc")
    assert sections["model"]["modalities"] == ("text",)
    sections["model"] |= {"num_classes": C}
    assert SPEC.build(**sections) == Model(SPEC, DAGERC(C), DAGERCLoss())
    sections["loss"]["class_weight_values"] = (1.0, 2.0, 3.0, 4.0)
    assert SPEC.build(**sections).loss == DAGERCLoss((1.0, 2.0, 3.0, 4.0))


MISTAKES = [
    ("model.score", "quadratic", "unknown score 'quadratic'; choose one of linear, leaky_relu"),
    ("model.initialization", "zeros", "unknown initialization 'zeros'; choose one of torch_uniform, lecun_normal"),
    ("model.modalities", "text,smell", "model.modalities has smell, but corpus 'synthetic-iemocap4' has only text"),
    ("model.modalities", "text,text", "modalities must be some of text, audio, visual, each once"),
    ("model.d_h", "0", "model.d_h is 0: give at least 1"),
    ("model.dag_layers", "0", "model.dag_layers is 0: give at least 1"),
    ("model.omega", "-1", "model.omega is -1: give at least 1"),
    ("model.mlp_layers", "0", "model.mlp_layers is 0: give at least 1"),
    ("model.dropout_rate", "1", "dropout_rate must be at least 0 and below 1, not 1.0"),
    ("loss.class_weights", "balanced", "loss.class_weights is 'balanced': choose one of none, inverse_freq, "),
]


@pytest.mark.parametrize(("field", "value", "expected"), MISTAKES, ids=[f"{f}={v}" for f, v, _ in MISTAKES])
def test_a_configuration_that_cannot_be_is_one_line(field, value, expected):
    config = change_fields(base_config("dagerc"), {field: value})
    with pytest.raises(UserError) as refusal:
        build_model(Pipeline.for_training(config, corpus()).config)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_corpus_without_the_modality_is_one_line():
    card = dataclasses.replace(corpus().card, widths={"audio": 4})
    with pytest.raises(
        UserError, match=r"^model\.modalities has text, but corpus 'synthetic-iemocap4' has only audio: choose "
    ):
        fit_to_corpus(base_config("dagerc"), card, conversations())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, r"modalities must be some of .*, not \(\)"),
        ({"modalities": ("text", "smell")}, "smell"),
        ({"d_h": 0}, "d_h must be at least 1, not 0"),
        ({"dag_layers": 0}, "dag_layers must be at least 1, not 0"),
        ({"omega": 0}, "omega must be at least 1, not 0"),
        ({"mlp_layers": 0}, "mlp_layers must be at least 1, not 0"),
        ({"dropout_rate": -0.1}, "dropout_rate must be at least 0 and below 1, not -0.1"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**options).init, jax.random.key(0), batch_of(conversations()))


def test_frames_are_refused():
    batch = batch_of(conversations())
    framed = batch.replace(frames={m: np.ones((*batch.mask.shape, 3), bool) for m in WIDTHS})
    with pytest.raises(ValueError, match="DAG-ERC reads one vector per utterance, not frames"):
        small().init(jax.random.key(0), framed)


def test_golden_values():
    """A fixed model on fixed input: numbers that a change of formula, initializer or parameter name would move."""
    model, batch = small(dag_layers=2), batch_of(conversations())
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    output = model.apply(variables, batch)
    found = [*output.logits[0, 0], *output.logits[2, 2, :2], mean_loss(model, WEIGHTED, variables["params"], batch)]
    golden = [-0.345492, -0.119928, 0.231225, 0.306590, -0.339591, -0.121572, 1.273680]
    np.testing.assert_allclose(found, golden, rtol=1e-4)
