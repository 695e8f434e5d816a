"""LFVD against a float64 transcription of Eqs. 2-21, and the laws that hold whatever its parameters."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from packed import apart, packed
from reference import draw_parameters, float64
from tiny import defaults

from jmer.batch import Batch
from jmer.evaluation.forward import forward_pass
from jmer.layers.gaussian import Gaussian
from jmer.modalities import MODALITIES
from jmer.models.lfvd import LFVD, SPEC, LFVDLoss, LFVDOutput
from jmer.models.spec import Model

WIDTHS = {"text": 6, "audio": 4, "visual": 5}
LENGTHS = (5, 1, 7, 3)
B, T, C = len(LENGTHS), 7, 4


def small(**options):
    sizes = {
        "num_classes": C,
        "d_r": 6,
        "d_h": 8,
        "d_x": 8,
        "d_z": 3,
        "num_heads": 2,
        "dag_layers": 1,
        "dropout_rate": 0.0,
    }
    return LFVD(**{**sizes, **options})


def conversations(seed=0):
    """Four conversations with two or three speakers, some utterances unlabelled, some without a modality."""
    rng = np.random.default_rng(seed)
    made = [
        {
            "features": {m: rng.normal(size=(n, width)).astype(np.float32) for m, width in WIDTHS.items()},
            "available": {m: np.ones(n, bool) for m in WIDTHS},
            "speakers": rng.integers(0, 3, n).astype(np.int32),
            "labels": rng.integers(0, C - 1, n).astype(np.int32),
        }
        for n in LENGTHS
    ]
    for modality, utterance in (("audio", 2), ("visual", 3), ("text", 4)):
        made[0]["available"][modality][utterance] = False
    made[1]["available"]["visual"][:] = False
    made[3]["available"]["audio"][:] = False
    made[0]["labels"][1] = made[2]["labels"][6] = -1
    made[2]["labels"][0] = C - 1  # the only one of its emotion
    return made


def batch_of(chosen, length=T, garbage=0.0):
    """Pads to `length`; `garbage` fills the features of padding and of what is unavailable."""

    def padded(rows, fill):
        return np.stack(
            [np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1), constant_values=fill) for x in rows]
        )

    available = {m: padded([c["available"][m] for c in chosen], False) for m in WIDTHS}
    features = {m: padded([c["features"][m] for c in chosen], 0) for m in WIDTHS}
    return Batch(
        features={m: np.where(available[m][..., None], x, np.float32(garbage)) for m, x in features.items()},
        mask=padded([np.ones(len(c["labels"]), bool) for c in chosen], False),
        labels=padded([c["labels"] for c in chosen], -1),
        speakers=padded([c["speakers"] for c in chosen], -1),
        available=available,
        conversation_ids=np.arange(len(chosen), dtype=np.int32)[:, None],
    )


def take(batch, rows):
    return jax.tree.map(lambda x: np.asarray(x)[np.array(rows)], batch)


@functools.cache
def parameters(model):
    drawn = draw_parameters(model, batch_of(conversations()))
    # Gaussians close enough that the weights' sigmoid does not saturate.
    return {**drawn, "posterior": jax.tree.map(lambda x: x / 3, drawn["posterior"])}


@functools.cache
def forward(model):
    return jax.jit(functools.partial(model.apply, attention=True))


def predict(model, batch):
    return forward(model)({"params": parameters(model)}, batch)


def gammas(contrast, supervised, distillation):
    return {"gamma_self": contrast, "gamma_full": supervised, "gamma_distillation": distillation}


# One objective for all gradients: each term weighs enough to be seen, and it compiles once.
LOSS = LFVDLoss(**gammas(0.5, 0.25, 0.1))


def total(terms):
    return sum(weight * values / jnp.maximum(count, 1) for weight, values, count in terms.values())


@functools.cache
def loss_and_gradient(model, loss):
    return jax.jit(jax.value_and_grad(lambda p, batch: total(loss(model.apply({"params": p}, batch), batch))))


def close(found, expected, name, rtol=1e-5, atol=2e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def check_forward(model):
    chosen = conversations()
    batch = batch_of(chosen, garbage=7.0)
    output = predict(model, batch)
    for b, (conversation, n) in enumerate(zip(chosen, LENGTHS, strict=True)):
        features = {m: np.float64(x) for m, x in conversation["features"].items()}
        expected = reference.lfvd(
            float64(parameters(model)), model, features, conversation["available"], conversation["speakers"]
        )
        for m in model.modalities:
            close(output.encoded[m][b, :n], expected["encoded"][m], f"encoded {m}")
            close(output.features[m][b, :n], expected["features"][m], f"features {m}")
            close(output.posteriors[m].mean[b, :n], expected["posteriors"][m][0], f"mean {m}")
            close(output.posteriors[m].scale[b, :n], expected["posteriors"][m][1], f"scale {m}")
            if model.reconstruct:
                close(output.reconstructions[m][b, :n], expected["reconstructions"][m], f"reconstruction {m}")
        assert set(output.weights) == set(expected["weights"])
        for m, weights in expected["weights"].items():
            close(output.weights[m][b, :n], weights, f"weights {m}")
        assert (output.atmosphere is None) == ("atmosphere" not in expected)
        if output.atmosphere is not None:
            rows = n if model.causal else 1
            close(output.atmosphere[b, :rows], expected["atmosphere"], "atmosphere")
        for name, weights in expected["attention"].items():
            close(output.attention[name][b, :, : weights.shape[1], : weights.shape[2]], weights, name)
        close(output.fused[b, :n], expected["fused"], "fused")
        close(output.logits[b, :n], expected["logits"], "logits")
    if not model.reconstruct:
        assert output.reconstructions is None
    assert output.samples is None


TOGETHER = [
    {"dag_layers": 2},
    {"causal": True, "dag_output": "last", "qkv_sharing": "per_modality", "fusion": "gate", "omega": 2},
    {
        "bidirectional": False,
        "dag_shared": True,
        "cross_residual": "query",
        "language_stream": "lfa",
        "sigma_param": "log_std",
        "weight_fn": "two_sigmoid_minus_one",
        "num_heads": 1,
        "ffn_mult": 1,
    },
    {"language_stream": "fused", "fusion": "cat", "dominant": "audio", "qkv_bias": True, "omega": 3},
    {
        "dominant": "visual",
        "fusion_input": "mu",
        "d_z": 8,
        "weight_fn": "one_minus",
        "weight_kl_reduction": "mean",
        "sigma_param": "log_var",
        "reconstruct": True,
    },
    {"fusion": "add", "use_atmosphere": False, "modalities": ("visual", "audio")},
    {"modalities": ("text",), "language_stream": "lfa"},
]
ALONE = [
    {"bidirectional": False},
    {"causal": True},
    {"causal": True, "language_stream": "fused"},
    {"dag_output": "last"},
    {"dag_layers": 0},
    {"dag_layers": 3},
    {"dag_shared": True},
    {"dag_shared": True, "modalities": ("audio",)},
    {"omega": 2},
    {"omega": 3},
    {"num_heads": 1},
    {"num_heads": 8},
    {"qkv_sharing": "per_modality"},
    {"qkv_sharing": "per_modality", "qkv_bias": True},
    {"qkv_bias": True},
    {"cross_residual": "query"},
    {"ffn_mult": 1},
    {"use_atmosphere": False},
    {"use_atmosphere": False, "language_stream": "fused"},
    {"language_stream": "lfa"},
    {"language_stream": "fused"},
    {"sigma_param": "log_std"},
    {"sigma_param": "log_var"},
    {"fusion": "add"},
    {"fusion": "cat"},
    {"fusion": "gate"},
    {"fusion_input": "mu", "d_z": 8},
    {"fusion_input": "z", "d_z": 8},
    {"weight_fn": "two_sigmoid_minus_one"},
    {"weight_fn": "one_minus"},
    {"weight_fn": "ones"},
    {"weight_kl_reduction": "mean"},
    {"weight_stop_grad": True},
    {"reconstruct": True},
    {"dominant": "audio"},
    {"dominant": "visual"},
]
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(MODALITIES, size)]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("options", TOGETHER, ids=named)
def test_forward_pass_matches_the_equations(options):
    check_forward(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("options", ALONE, ids=named)
def test_each_option_matches_the_equations(options):
    check_forward(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("fusion", ["cmvd", "cat"])
def test_each_subset_of_modalities_matches_the_equations(modalities, fusion):
    check_forward(small(modalities=modalities, fusion=fusion))


ORDER, LONGER = ((3, 0, 1), (2,)), 10


@pytest.mark.parametrize("options", TOGETHER, ids=named)
def test_conversations_of_one_row_do_not_influence_each_other(options):
    """What is computed of them, the losses and the gradient are those of conversations in rows of their own."""
    model, batch = small(**options), batch_of(conversations(), garbage=7.0)
    together = packed(batch, ORDER, LONGER)
    expected, found = predict(model, batch), predict(model, together)
    for b in range(B):
        ((row, slot),) = np.argwhere(together.conversation_ids == b)
        if model.use_atmosphere and not model.causal:
            close(found.atmosphere[row, slot], expected.atmosphere[b, 0], "atmosphere")
    for name in ("logits", "fused", "encoded", "features", "posteriors", "weights", "reconstructions"):
        one, other = getattr(found, name), getattr(expected, name)
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            close(apart(x, together, batch), np.where(batch.mask.reshape(B, T, *[1] * (y.ndim - 2)), y, 0), name)
    step = loss_and_gradient(model, dataclasses.replace(LOSS, contrast_scope="conversation"))
    (loss, gradient), (other, expected) = (step(parameters(model), one) for one in (together, batch))
    close(loss, other, "loss")
    jax.tree.map(lambda x, y: close(x, y, "gradient", rtol=1e-4), gradient, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_the_atmosphere_attention_of_packed_conversations_is_that_of_each(causal):
    model, batch = small(causal=causal), batch_of(conversations())
    together = packed(batch, ORDER, LONGER)
    run = forward_pass(Model(SPEC, model, LOSS))
    expected, found = (run({"params": parameters(model)}, one).attention for one in (batch, together))
    real = np.where(batch.mask, expected["atmosphere"], 0)
    assert (real.sum(1) > 0.1).all()
    close(apart(found["atmosphere"], together, batch), real, "attention")


def random_output(batch, seed=0, width=5):
    """An output with features, posteriors, samples and reconstructions drawn at random, padding included."""
    rng = np.random.default_rng(seed)

    def draw(last):
        return rng.normal(size=(*batch.mask.shape, last)).astype(np.float32)

    posteriors = {m: Gaussian(draw(3), np.exp(0.5 * draw(3))) for m in WIDTHS}
    return LFVDOutput(
        logits=draw(C),
        encoded={},
        atmosphere=None,
        features={m: draw(width) for m in WIDTHS},
        posteriors=posteriors,
        samples={m: q.mean + q.scale * draw(3) for m, q in posteriors.items()},
        reconstructions={m: draw(width) for m in WIDTHS},
        weights={},
        fused=draw(width),
        attention=None,
    )


def transcribed_losses(output, chosen, loss, dominant):
    """The reference's terms of a padded output, cut to the real utterances."""

    def cut(x, b):
        return np.float64(x[b, : LENGTHS[b]])

    rows = [
        {
            "logits": cut(output.logits, b),
            "features": {m: cut(x, b) for m, x in output.features.items()},
            "posteriors": {m: (cut(q.mean, b), cut(q.scale, b)) for m, q in output.posteriors.items()},
            "samples": {m: cut(x, b) for m, x in output.samples.items()},
            "reconstructions": {m: cut(x, b) for m, x in output.reconstructions.items()},
            "available": conversation["available"],
            "labels": conversation["labels"],
        }
        for b, conversation in enumerate(chosen)
    ]
    return reference.lfvd_losses(rows, loss, tuple(output.features), dominant)


def only(output, modalities):
    """The output of a model of fewer modalities."""
    return output.replace(
        **{
            field: {m: getattr(output, field)[m] for m in modalities}
            for field in ("features", "posteriors", "samples", "reconstructions")
        }
    )


LOSSES = [
    {},
    {"self_denominator": "all"},
    {"supcon_denominator": "negatives_plus_self"},
    {"supcon_denominator": "all_but_self"},
    {"contrast_scope": "conversation"},
    {"contrast_scope": "conversation", "self_denominator": "all"},
    {"tau": 0.1},
    {"kl_estimator": "mc"},
    {"teacher_stop_grad": True},
    {"recon_weight": 0.7},
    {"class_weights": (0.5, 2.0, 1.0, 3.0)},
    {"dominant": "audio"},
    {"dominant": "visual", "kl_estimator": "mc"},
    gammas(0.0, 0.5, 0.25),
    gammas(1.0, 0.0, 0.25),
    gammas(1.0, 0.5, 0.0),
    gammas(0.0, 0.0, 0.0),
]


@pytest.mark.parametrize("modalities", [MODALITIES, ("audio", "visual"), ("visual",)], ids="+".join)
@pytest.mark.parametrize("options", LOSSES, ids=named)
def test_losses_match_the_equations(options, modalities):
    chosen, loss = conversations(), LFVDLoss(**options)
    batch = batch_of(chosen)
    output = only(random_output(batch), modalities)
    dominant = loss.dominant if loss.dominant in modalities else modalities[0]
    expected = transcribed_losses(output, chosen, loss, dominant)
    found = loss(output, batch)
    assert set(found) == set(expected)
    for term, (weight, values, count) in expected.items():
        assert found[term][0] == weight
        close(found[term][1], values, f"sum of {term}", rtol=2e-5)
        close(found[term][2], count, f"count of {term}")


def test_loss_weights_default_to_the_papers_for_iemocap():
    assert LFVDLoss() == LFVDLoss(**gammas(3.5e-2, 5e-3, 3e-3))


def test_the_teacher_learns_unless_its_gradient_is_stopped():
    batch = batch_of(conversations())
    output = random_output(batch)

    def pull(loss):
        def distillation(mean):
            text = output.posteriors["text"].replace(mean=mean)
            moved = output.replace(posteriors={**output.posteriors, "text": text})
            return loss(moved, batch)["distillation"][1]

        return jax.grad(distillation)(output.posteriors["text"].mean)

    there = batch.available["text"][..., None]
    towards_prior = np.where(there, output.posteriors["text"].mean, 0)
    np.testing.assert_allclose(pull(LFVDLoss(teacher_stop_grad=True)), towards_prior, rtol=1e-5, atol=1e-6)
    assert np.abs(pull(LFVDLoss()) - towards_prior).max() > 0.1


@pytest.mark.parametrize("scope", ["batch", "conversation"])
def test_losses_add_up_over_devices(scope):
    batch = batch_of(conversations())
    output = random_output(batch)
    loss = LFVDLoss(contrast_scope=scope, recon_weight=0.5, class_weights=(0.5, 2.0, 1.0, 3.0))
    shares = jax.pmap(lambda *device: loss(*device, axis="batch"), axis_name="batch", devices=jax.devices()[:2])(
        *jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (output, batch))
    )
    for term, (weight, values, count) in loss(output, batch).items():
        np.testing.assert_allclose(shares[term][0], [weight] * 2)
        close(shares[term][1].sum(), values, term)
        close(shares[term][2].sum(), count, term)


def test_property_1_padding_changes_no_output_and_no_loss():
    model, loss, chosen = small(), LOSS, conversations()
    short, long = batch_of(chosen), batch_of(chosen, T + 4)
    one, other = predict(model, short), predict(model, long)
    for name in ("logits", "fused", "features", "encoded", "weights"):
        jax.tree.map(
            lambda a, b, name=name: close(a[short.mask], b[long.mask], name), getattr(one, name), getattr(other, name)
        )
    close(one.atmosphere, other.atmosphere, "atmosphere")
    close(total(loss(one, short)), total(loss(other, long)), "loss")


@pytest.mark.parametrize("garbage", [1e6, np.nan, np.inf])
def test_what_stands_under_masks_does_not_matter(garbage):
    model, chosen = small(), conversations()
    step = loss_and_gradient(model, LOSS)
    clean, dirty = (step(parameters(model), batch_of(chosen, garbage=fill)) for fill in (0.0, garbage))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    close(predict(model, batch_of(chosen)).logits, predict(model, batch_of(chosen, garbage=garbage)).logits, "logits")


def test_permuting_conversations_permutes_outputs():
    model, batch, order = small(), batch_of(conversations()), [2, 0, 3, 1]
    straight, permuted = predict(model, batch), predict(model, take(batch, order))
    jax.tree.map(lambda a, b: close(a[np.array(order)], b, "permuted"), straight, permuted)


def test_a_batch_equals_its_conversations_one_at_a_time():
    model, batch = small(), batch_of(conversations())
    whole = predict(model, batch)
    for b in range(B):
        # The shape stays: three other rows are padding conversations.
        alone = jax.tree.map(np.zeros_like, batch).replace(labels=np.full((B, T), -1, np.int32))
        alone = jax.tree.map(lambda x, y, b=b: np.concatenate([x[b : b + 1], y[1:]]), batch, alone)
        jax.tree.map(lambda a, c, b=b: close(a[b], c[0], "alone"), whole, predict(model, alone))


def edge_batches():
    batch = batch_of(conversations())
    nothing = jax.tree.map(np.zeros_like, batch).replace(labels=np.full((B, T), -1, np.int32))
    single = jax.tree.map(lambda x, y: np.concatenate([x[1:2], y[1:]]), batch, nothing)
    unlabelled = batch.replace(labels=np.full((B, T), -1, np.int32))
    no_text = batch.replace(available={**batch.available, "text": np.zeros((B, T), bool)})
    no_modality = batch.replace(available=dict.fromkeys(WIDTHS, np.zeros((B, T), bool)))
    one_emotion = batch.replace(labels=np.where(batch.mask, 0, -1).astype(np.int32))
    return {
        "all padding": nothing,
        "one utterance": single,
        "unlabelled": unlabelled,
        "no text at all": no_text,
        "no modality at all": no_modality,
        "one emotion": one_emotion,
    }


@pytest.mark.parametrize("name", edge_batches())
def test_gradients_stay_finite_at_the_edges(name):
    model, batch = small(), edge_batches()[name]
    value, gradient = loss_and_gradient(model, LOSS)(parameters(model), batch)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    if name == "all padding":
        assert value == 0
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_gradients_match_finite_differences_of_the_equations():
    """The whole objective along random directions in parameter space, in float64."""
    model, loss, chosen = small(), LOSS, conversations()
    p = float64(parameters(model))

    def objective(p):
        outputs = []
        for conversation in chosen:
            features = {m: np.float64(x) for m, x in conversation["features"].items()}
            out = reference.lfvd(p, model, features, conversation["available"], conversation["speakers"])
            outputs.append({**out, "available": conversation["available"], "labels": conversation["labels"]})
        terms = reference.lfvd_losses(outputs, loss, MODALITIES, "text")
        return sum(weight * values / count for weight, values, count in terms.values())

    value, gradient = loss_and_gradient(model, loss)(parameters(model), batch_of(chosen))
    np.testing.assert_allclose(value, objective(p), rtol=1e-5)
    step = 1e-6
    for seed in range(4):
        rng = np.random.default_rng(seed)
        direction = jax.tree.map(lambda x, rng=rng: rng.normal(size=x.shape), p)
        ahead, behind = (objective(jax.tree.map(lambda x, d, s=s: x + s * step * d, p, direction)) for s in (1, -1))
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (np.float64(g) * d).sum(), gradient, direction)))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize(("options", "sees_ahead"), [({"causal": True, "language_stream": "fused"}, False), ({}, True)])
def test_a_causal_model_does_not_look_ahead(options, sees_ahead):
    """Whatever is said after utterance i, by whomever, in whatever modalities."""
    model = small(**options)
    batch = batch_of(conversations(0))
    before = predict(model, batch)
    other = batch_of(conversations(1))
    for i in range(T - 1):
        later = np.arange(T) > i
        changed = jax.tree.map(
            lambda x, y, later=later: np.where(later.reshape(1, T, *(1,) * (x.ndim - 2)), y, x) if x.ndim > 1 else x,
            batch,
            other,
        )
        after = predict(model, changed)
        here = batch.mask[:, : i + 1]
        differences = np.abs(before.logits - after.logits)[:, : i + 1][here]
        assert (differences.max() > 1e-3) == sees_ahead
        if not sees_ahead:
            np.testing.assert_array_equal(differences, np.zeros_like(differences))


def test_property_2_the_graphs_query_scores_get_no_gradient():
    model = small()
    _, gradient = loss_and_gradient(model, LOSS)(parameters(model), batch_of(conversations()))
    layer = gradient["graph"]["layer_0"]
    assert np.abs(layer["score_query_kernel"]).max() < 1e-6
    assert np.abs(layer["score_bias"]).max() < 1e-6
    assert np.abs(layer["score_key_kernel"]).max() > 1e-4


def test_property_4_weights_lie_between_a_half_and_one():
    batch = batch_of(conversations())
    output = predict(small(), batch)
    for m in ("audio", "visual"):
        compared = batch.available[m] & batch.available["text"]
        assert (output.weights[m][compared] > 0.5).all() and (output.weights[m][compared] < 1).all()
        assert np.std(output.weights[m][compared]) > 1e-3
        np.testing.assert_array_equal(output.weights[m][~batch.available[m]], 0)
    np.testing.assert_array_equal(output.weights["text"], batch.available["text"])


def test_property_5_contrast_ignores_the_length_of_features():
    batch = batch_of(conversations())
    output, loss = random_output(batch), LFVDLoss()
    scaled = output.replace(
        features={m: x * s for (m, x), s in zip(output.features.items(), (0.1, 3, 50), strict=True)}
    )
    for term in ("self", "full"):
        close(loss(scaled, batch)[term][1], loss(output, batch)[term][1], term)


def test_property_6_only_the_literal_contrast_between_modalities_may_be_negative():
    batch = batch_of(conversations())
    output = random_output(batch, width=40)
    aligned = output.replace(features=dict.fromkeys(WIDTHS, output.features["text"]))
    literal, with_self = (
        LFVDLoss(self_denominator=d, tau=0.05)(aligned, batch)["self"][1] for d in ("negatives", "all")
    )
    assert literal < 0 <= with_self


@pytest.mark.parametrize(("stream", "reached"), [("encoder", False), ("lfa", True)])
def test_property_7_without_atmosphere_the_transformer_reaches_the_classifier_only_by_the_language_stream(
    stream, reached
):
    model = small(use_atmosphere=False, language_stream=stream)
    _, gradient = loss_and_gradient(model, LOSS)(parameters(model), batch_of(conversations()))

    def largest(part):
        return max(np.abs(leaf).max() for leaf in jax.tree.leaves(part))

    to_text = {m: largest(reference.one_of(gradient["language_guided"], i)) for i, m in enumerate(model.modalities)}
    assert largest(gradient["atmosphere"]) == to_text["audio"] == to_text["visual"] == 0
    assert (to_text["text"] > 0) == reached
    assert largest(gradient["gru"]["audio_forward_input_kernel"]) > 0


def test_property_8_standard_normals_give_no_distillation_and_weights_of_a_half():
    model, batch = small(), batch_of(conversations())
    p = parameters(model)
    kernel = np.zeros_like(p["posterior"]["output"]["kernel"])
    bias = np.tile(np.repeat(np.float32([0, np.log(np.e - 1)]), model.d_z), (len(WIDTHS), 1))
    p = {**p, "posterior": {**p["posterior"], "output": {"kernel": kernel, "bias": bias}}}
    output = forward(model)({"params": p}, batch)
    close(LFVDLoss()(output, batch)["distillation"][1], 0, "distillation")
    for m in ("audio", "visual"):
        compared = batch.available[m] & batch.available["text"]
        close(output.weights[m][compared], 0.5, "weights")


@pytest.mark.slow
def test_weights_pass_a_gradient_unless_it_is_stopped():
    batch = batch_of(conversations())
    for stop in (False, True):
        model = small(weight_stop_grad=stop)
        _, gradient = loss_and_gradient(model, LFVDLoss(**gammas(0.0, 0.0, 0.0)))(parameters(model), batch)
        audio = reference.one_of(gradient["posterior"], model.modalities.index("audio"))
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(audio))
        assert (largest == 0) == stop


def test_training_draws_depend_on_the_conversation_alone(key):
    """Dropout and samples follow a conversation through a permuted batch, and the samples are what is fused."""
    model = small(dropout_rate=0.3, fusion_input="z", d_z=8)
    streams = {"dropout": key(), "latent": key()}
    apply = jax.jit(functools.partial(model.apply, train=True))
    batch, order = batch_of(conversations()), np.array([2, 0, 3, 1])
    variables = {"params": parameters(model)}
    straight = apply(variables, batch, rngs=streams)
    jax.tree.map(
        lambda a, b: close(a[order], b, "permuted"), straight, apply(variables, take(batch, order), rngs=streams)
    )
    fused = sum(
        np.where(batch.available[m], straight.weights[m], 0)[..., None] * straight.samples[m] for m in MODALITIES
    )
    close(straight.fused, fused, "fused")
    again = apply(variables, batch, rngs={"dropout": key(), "latent": key()})
    assert not np.allclose(again.encoded["text"], straight.encoded["text"])
    standardized = [
        (z - straight.posteriors[m].mean) / straight.posteriors[m].scale for m, z in straight.samples.items()
    ]
    assert len({np.round(np.asarray(z), 3).tobytes() for z in standardized}) == 3


UNKNOWN = {
    "dominant": "smell",
    "qkv_sharing": "all",
    "cross_residual": "none",
    "language_stream": "decoder",
    "fusion": "mean",
    "fusion_input": "y",
    "sigma_param": "std",
    "weight_fn": "tanh",
    "weight_kl_reduction": "max",
    "dag_output": "first",
    "initialization": "xavier",
}
CHOICES = {
    "dominant": "text, audio, visual",
    "qkv_sharing": "per_block, per_modality",
    "cross_residual": "source, query",
    "language_stream": "encoder, lfa, fused",
    "fusion": "cmvd, add, cat, gate",
    "fusion_input": "x, mu, z",
    "sigma_param": "softplus_std, log_std, log_var",
    "weight_fn": "sigmoid, two_sigmoid_minus_one, one_minus, ones",
    "weight_kl_reduction": "sum, mean",
    "dag_output": "concat_proj, last",
    "initialization": "torch_uniform, lecun_normal",
}


@pytest.mark.parametrize("option", UNKNOWN)
def test_unknown_option_values_are_refused_with_the_choices(option):
    with pytest.raises(ValueError, match=f"'{UNKNOWN[option]}'.*{CHOICES[option]}"):
        jax.eval_shape(small(**{option: UNKNOWN[option]}).init, jax.random.key(0), batch_of(conversations()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, r"modalities must be some of .*, not \(\)"),
        ({"modalities": ("text", "text")}, "each once"),
        ({"modalities": ("text", "smell")}, "smell"),
        ({"fusion_input": "mu"}, "fusion_input mu needs d_z = d_x, not 3 and 8"),
        ({"fusion_input": "z"}, "fusion_input z needs d_z = d_x, not 3 and 8"),
        ({"dag_output": "last", "d_h": 6}, "dag_output last needs d_h = d_x, not 6 and 8"),
        ({"num_heads": 3}, "num_heads must divide d_x, but 3 does not divide 8"),
        ({"d_r": 5}, "d_r must be even for a bidirectional GRU, not 5"),
        ({"omega": 0}, "omega must be at least 1, not 0"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"self_denominator": "some"}, "'some'; choose one of negatives, all"),
        ({"supcon_denominator": "all"}, "'all'; choose one of negatives, negatives_plus_self, all_but_self"),
        ({"contrast_scope": "epoch"}, "'epoch'; choose one of batch, conversation"),
        ({"kl_estimator": "exact"}, "'exact'; choose one of analytic, mc"),
        ({"dominant": "smell"}, "'smell'; choose one of text, audio, visual"),
        ({"tau": 0.0}, "tau must be above 0, not 0.0"),
    ],
)
def test_losses_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LFVDLoss(**options)


def test_frames_are_refused():
    batch = batch_of(conversations())
    framed = batch.replace(frames={m: np.ones((*batch.mask.shape, 3), bool) for m in batch.features})
    with pytest.raises(ValueError, match="LFVD reads one vector per utterance, not frames"):
        small().init(jax.random.key(0), framed)


def test_class_weights_are_one_for_each_emotion():
    batch = batch_of(conversations())
    with pytest.raises(ValueError, match="there are 3 class_weights for 4 emotions"):
        LFVDLoss(class_weights=(1.0, 2.0, 3.0))(random_output(batch), batch)


def test_created_from_its_default_sections():
    sections = defaults("lfvd")
    sections["model"] |= {"num_classes": C, "modalities": ("text", "audio")}
    model = SPEC.build(sections["model"], sections["loss"])
    assert (model.module, model.loss) == (LFVD(C, ("text", "audio")), LFVDLoss())
    for option, fields in (("recon_weight", {"reconstruct", "draw_samples"}), ("kl_estimator", {"draw_samples"})):
        value = {"recon_weight": 0.5, "kl_estimator": "mc"}[option]
        model = SPEC.build(sections["model"], {**sections["loss"], option: value})
        assert getattr(model.loss, option) == value
        assert {f.name for f in dataclasses.fields(model.module) if getattr(model.module, f.name) is True} - {
            "bidirectional",
            "use_atmosphere",
        } == fields
    with pytest.raises(ValueError, match="unknown fusion 'mean'"):
        SPEC.build({**sections["model"], "fusion": "mean"}, sections["loss"])


def test_golden_values():
    """A fixed model on fixed input: numbers that a change of formula, initializer or parameter name would move."""
    model, batch = small(), batch_of(conversations())
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    output = forward(model)(variables, batch)
    found = [
        *output.logits[0, 0],
        *output.logits[2, 6, :2],
        output.weights["audio"][2, 1],
        output.weights["visual"][0, 0],
        output.fused[3, 2, 0],
        total(LFVDLoss()(output, batch)),
    ]
    golden = [-0.633180, -1.708807, 1.100289, 3.063733, -0.574893, -1.884398, 0.966857, 0.938271, 3.769700, 3.521603]
    np.testing.assert_allclose(found, golden, rtol=1e-4)
