"""LSDGNN against a float64 transcription of its equations, and what holds for its two branches and their difference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packed import apart, packed
from reference import dag_layer, draw_parameters, float64, linear, one_of, rows_where, softmax
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from jmer.data.batching import batches
from jmer.losses.difference import branch_difference
from jmer.modalities import MODALITIES
from jmer.models.lsdgnn import LSDGNN, LSDGNNLoss, LSDGNNOutput
from jmer.segments import Segments

C = len(EMOTIONS)


@functools.cache
def conversations():
    """Four conversations with unlabelled utterances, and some that lack a modality or all of them."""
    return tiny_corpus().conversations("train")[:4]


def batch_of(garbage=0.0, **options):
    (batch,) = batches(conversations(), WIDTHS, batch_size=4, **options)
    features = {m: np.where(batch.available[m][..., None], x, np.float32(garbage)) for m, x in batch.features.items()}
    return batch.replace(features=features)


def small(**options):
    return LSDGNN(**{"num_classes": C, "d_h": 5, "dag_layers": 1, "omega_long": 3, "dropout_rate": 0.0} | options)


def lsdgnn(p, model, conversation):
    """The logits `[n, C]` and the branches' states `[2, L, n, H]` of one conversation."""
    there, features = conversation.available, conversation.features
    x = [rows_where(there[m], np.float64(features[m])) for m in MODALITIES if m in model.modalities]
    x = np.concatenate(x, axis=1)
    below = np.maximum(linear(p["input"], x), 0)
    branches, parts = [below, below], [below, below]
    all_states = []
    for layer in range(model.dag_layers):
        branches = [
            dag_layer(one_of(p["branches"][f"layer_{layer}"], i), branches[i], conversation.speakers, window)
            for i, window in enumerate((model.omega_short, model.omega_long))
        ]
        short, long = branches
        to_long = short @ p["exchange"]["first_kernel"] @ long.T
        to_short = long @ p["exchange"]["second_kernel"] @ short.T
        parts.append(np.stack([softmax(row) @ long for row in to_long]))
        parts.append(np.stack([softmax(row) @ short for row in to_short]))
        all_states.append(branches)
    hidden = np.concatenate([*parts, x], axis=1)
    for layer in range(2):
        hidden = np.maximum(linear(p[f"hidden_{layer}"], hidden), 0)
    return linear(p["classifier"], hidden), np.swapaxes(np.stack(all_states), 0, 1)


def difference(first, second):
    """One over the mean distance of vectors `[n, D]`, centred and scaled."""
    if len(first) < 2:
        return 0.0
    scaled = []
    for vectors in (first, second):
        centred = vectors - np.mean(vectors, axis=0)
        scaled.append([v / (np.linalg.norm(v) + 1e-6) for v in centred])
    return 1 / np.mean([np.linalg.norm(s - g) for s, g in zip(*scaled, strict=True)])


def laid_out(states, unit):
    """The vectors of conversations' states, a list of `[n, H]`."""
    if unit == "utterance":
        return np.concatenate(states)
    longest = max(map(len, states))
    return np.stack([np.pad(s, ((0, longest - len(s)), (0, 0))).reshape(-1) for s in states])


@pytest.mark.parametrize(
    "options", [{"dag_layers": 2}, {"modalities": ("visual", "text"), "omega_short": 2}], ids=["layers", "modalities"]
)
def test_the_network_matches_the_equations(options):
    """Padded and packed, with garbage where nothing is."""
    model, batch = small(**options), batch_of(garbage=7.0)
    p = draw_parameters(model, batch)
    expected = [lsdgnn(float64(p), model, c) for c in conversations()]
    together = packed(batch_of(), ((1, 2, 3), (0,)), length=20)
    for one, laid in ((batch, lambda x: x), (together, lambda x: apart(x, together, batch))):
        output = jax.jit(model.apply)({"params": p}, one)
        logits, states = laid(output.logits), laid(jnp.moveaxis(output.branch_states, (2, 3), (0, 1)))
        for b, (wanted, wanted_states) in enumerate(expected):
            length = len(wanted)
            np.testing.assert_allclose(logits[b, :length], wanted, rtol=1e-5, atol=2e-5)
            found = jnp.moveaxis(jnp.asarray(states[b, :length]), 0, 2)
            np.testing.assert_allclose(found, wanted_states, rtol=1e-5, atol=2e-5)


measure = jax.jit(branch_difference, static_argnames=("unit", "axis"))


def random_states(count=2, seed=0):
    """States of both branches in `count` layers, garbage where padded."""
    return np.random.default_rng(seed).normal(size=(2, count, *batch_of().mask.shape, 3)).astype(np.float32)


@pytest.mark.parametrize("unit", ["conversation", "utterance"])
def test_the_loss_is_cross_entropy_and_difference(unit):
    """Against loops over conversations; packed, and divided among devices, it is the same."""
    batch, states = batch_of(), random_states()
    logits = np.random.default_rng(1).normal(size=(*batch.mask.shape, C)).astype(np.float32)
    loss = LSDGNNLoss(beta=0.3, difference_unit=unit, class_weights=(0.5, 2.0, 1.0, 3.0))
    wanted_difference = sum(
        difference(*(laid_out([s[b, m] for b, m in enumerate(batch.mask)], unit) for s in np.float64(layer)))
        for layer in np.swapaxes(states, 0, 1)
    )
    labelled = batch.mask & (batch.labels >= 0)
    weights = np.array(loss.class_weights)[batch.labels[labelled]]
    chosen = [
        softmax(row)[label] for row, label in zip(np.float64(logits[labelled]), batch.labels[labelled], strict=True)
    ]
    wanted = {
        "classification": (1.0, -(weights * np.log(chosen)).sum(), weights.sum()),
        "difference": (0.3, wanted_difference, 1.0),
    }
    assert (batch.labels[batch.mask] < 0).any()

    found = jax.jit(loss)(LSDGNNOutput(logits, states), batch)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)

    first, second = states[:, 0]
    alone = difference(*(laid_out([np.float64(s)[b, m] for b, m in enumerate(batch.mask)], unit) for s in states[:, 0]))
    together = packed(batch.replace(features={"first": first, "second": second}, available={}), ((2, 0), (3, 1)), 20)
    of_rows = measure(*together.features.values(), where=together.mask, segments=together.segments, unit=unit)
    np.testing.assert_allclose(of_rows, alone, rtol=1e-5)

    @functools.partial(jax.vmap, axis_name="device")
    def on_devices(first, second, where):
        return branch_difference(first, second, where=where, unit=unit, axis="device")

    divided = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (first, second, batch.mask))
    np.testing.assert_allclose(jax.jit(on_devices)(*divided), [alone] * 2, rtol=1e-5)


def test_without_its_weight_the_difference_is_not_computed():
    batch = batch_of()
    output = jax.eval_shape(small().init_with_output, jax.random.key(0), batch)[0]
    assert jax.eval_shape(LSDGNNLoss(beta=0.0), output, batch).keys() == {"classification"}


@pytest.mark.parametrize("unit", ["conversation", "utterance"])
@pytest.mark.parametrize("rows", [0, 1])
def test_a_conversation_alone_differs_from_nothing(unit, rows):
    """Value and gradient are zero, not infinite; also of two branches with the same states."""
    first, second = random_states()[:, 0]
    where = np.zeros(first.shape[:2], bool)
    where[:rows, : 1 if unit == "utterance" else 3] = True
    step = jax.jit(jax.value_and_grad(functools.partial(branch_difference, where=where, unit=unit), argnums=(0, 1)))
    for arguments in ((first, second), (first, first)):
        value, gradients = step(*map(jnp.asarray, arguments))
        assert value == 0
        assert all((g == 0).all() for g in gradients)


def test_the_difference_of_equal_branches_is_finite():
    first = jnp.asarray(random_states()[0, 0])
    value, gradient = jax.jit(jax.value_and_grad(branch_difference))(first, first, where=batch_of().mask)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("slots", [1, 2])
def test_the_gradient_of_the_difference_is_that_of_finite_differences(slots):
    """Of packed and of padded rows, in float64."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(2, 3, 6, 2))
        where = np.arange(6)[None] < np.array([6, 4, 5])[:, None]
        ids = np.broadcast_to(np.arange(6) >= 3, (3, 6)).astype(np.int32) * (slots - 1)
        value = functools.partial(measure, where=where, segments=Segments(ids, slots))
        gradients = jax.jit(jax.grad(value, argnums=(0, 1)))(jnp.asarray(first), jnp.asarray(second))
        direction = rng.normal(size=(2, 3, 6, 2))
        ahead, behind = (value(*(np.stack([first, second]) + step * direction)) for step in (1e-5, -1e-5))
        np.testing.assert_allclose((np.stack(gradients) * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-6)
        assert value(first, second) >= 0.5


def test_opposed_branches_have_the_lowest_difference():
    """Two conversations' centred vectors are opposite ones; branches that swap them are as far apart as can be."""
    first = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(measure(first, first[::-1], where=jnp.ones((2, 4), bool)), 0.5, rtol=1e-5)


def test_every_utterance_reaches_every_other_one_and_the_windows_differ():
    """The exchange looks ahead. With one window and one set of weights, both branches have one state."""
    model, batch = small(), batch_of()
    p = draw_parameters(model, batch)
    apply = jax.jit(model.apply)
    output = apply({"params": p}, batch)
    last = batch.mask.sum(1).min() - 1
    features = {m: x.copy() for m, x in batch.features.items()}
    features["text"][:, last] += 1.0
    available = {m: batch.available[m] | batch.mask for m in MODALITIES}
    one, other = (
        apply({"params": p}, batch.replace(features=f, available=available)).logits for f in (features, batch.features)
    )
    assert (np.abs(one - other)[:, 0].max(-1) > 1e-6).all()
    alike = p | {"branches": jax.tree.map(lambda x: np.stack([x[0], x[0]]), p["branches"])}
    short, long = apply({"params": alike}, batch).branch_states
    assert np.abs(short - long).max() > 1e-4
    short, long = jax.jit(small(omega_long=1).apply)({"params": alike}, batch).branch_states
    np.testing.assert_allclose(short, long, rtol=1e-6, atol=1e-7)
    assert output.branch_states.shape == (2, 1, *batch.mask.shape, 5)


def test_dropout_spares_the_last_exchange(key):
    """With one layer it falls before the classifier alone, with two on what the first one's branches exchange too."""
    batch = batch_of()
    for layers, wide in ((1, 0), (2, 10)):
        model = small(dag_layers=layers, dropout_rate=0.5)
        p = draw_parameters(model, batch)
        apply = functools.partial(model.apply, train=True, capture_intermediates=True, mutable="intermediates")
        seen = apply({"params": p}, batch, rngs={"dropout": key()})[1]["intermediates"]
        (early,), (before,) = (seen[f"ConversationDropout_{i}"]["__call__"] for i in range(2))
        assert early.shape[-1] == wide and before.shape[-1] == 5
        assert 0.3 < (before == 0).mean() < 1


def test_the_published_size():
    """13.06 million parameters on IEMOCAP, 6.87 million on MELD."""
    for layers, width, classes, expected in ((4, 2948, 6, 13.06), (2, 1666, 7, 6.87)):
        batch = batch_of().replace(features={"text": np.zeros((*batch_of().mask.shape, width), np.float32)})
        model = LSDGNN(classes, modalities=("text",), dag_layers=layers)
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
        assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 2) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "smell"),
        ({"d_h": 0}, "d_h must be at least 1, not 0"),
        ({"dag_layers": 0}, "dag_layers must be at least 1, not 0"),
        ({"omega_short": 0}, "omega_short must be at least 1, not 0"),
        ({"omega_long": -1}, "omega_long must be at least 1, not -1"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


def test_a_difference_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unknown difference_unit 'dialogue'; choose one of conversation, utterance"):
        LSDGNNLoss(difference_unit="dialogue")
