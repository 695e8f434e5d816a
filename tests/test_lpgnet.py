"""LPGNet against a float64 transcription of its equations, and the laws that hold whatever its parameters."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from packed import apart, packed
from reference import attention, draw_parameters, float64, linear, one_of, rows_where, sigmoid, softmax
from tiny import defaults, start, tiny_corpus
from tiny import train as train_run

from jmer.batch import Batch
from jmer.config import base_config, with_variants
from jmer.layers.enhancement import COMPRESSIONS
from jmer.modalities import MODALITIES
from jmer.models import Model
from jmer.models.lpgnet import SPEC, LPGNet
from jmer.models.self_distillation import SelfDistillationLoss, gate_means
from jmer.runs import read_config, write_results
from jmer.training import create_train_state, make_parallel, train_step
from jmer.training.checkpointing import Checkpoints

WIDTHS = {"text": 6, "audio": 4, "visual": 5}
FRAMES = {"text": 4, "audio": 6, "visual": 3}
LENGTHS = (5, 1, 7, 3, 0)
T, C = 7, 4
# The fused head's own label, the students', and what they take over: each weighs enough to be seen.
LOSS = SelfDistillationLoss(1.5, 1.0, 0.8, tau=2.0, class_weights=(0.5, 2.0, 1.0, 3.0))


def small(**options):
    return LPGNet(**{"num_classes": C, "d": 8, "dropout_rate": 0.0} | options)


@functools.cache
def conversations(seed=0):
    """Conversations of unequal lengths, one of them padding; some utterances lack a modality, a label, or anything."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T)[None] < np.array(LENGTHS)[:, None]
    available = {m: mask & (rng.random(mask.shape) < 0.8) for m in WIDTHS}
    available["audio"][3] = False
    for m in WIDTHS:
        available[m][2, 4] = False
    labels = rng.integers(0, C, mask.shape)
    return Batch(
        features=draw(rng, WIDTHS, available),
        mask=mask,
        labels=np.where(mask & (rng.random(mask.shape) < 0.8), labels, -1).astype(np.int32),
        speakers=np.where(mask, rng.integers(0, 2, mask.shape), -1).astype(np.int32),
        available=available,
        conversation_ids=np.where(mask.any(1), np.arange(len(LENGTHS)), -1).astype(np.int32)[:, None],
    )


@functools.cache
def framed(seed=0):
    """Three conversations of up to two utterances, these of up to `FRAMES` frames; some lack a modality or both."""
    rng = np.random.default_rng(seed)
    mask = np.array([[True, True], [True, False], [True, True]])
    counts = {m: rng.integers(1, longest + 1, mask.shape) for m, longest in FRAMES.items()}
    counts["audio"][0, 1] = counts["text"][2, 0] = 0
    for m in FRAMES:
        counts[m][2, 1] = 0
    frames = {m: mask[..., None] & (np.arange(FRAMES[m]) < counts[m][..., None]) for m in FRAMES}
    return Batch(
        features=draw(rng, WIDTHS, frames),
        mask=mask,
        labels=np.where(mask, rng.integers(0, C, mask.shape), -1).astype(np.int32),
        speakers=np.where(mask, 0, -1).astype(np.int32),
        available={m: x.any(-1) for m, x in frames.items()},
        conversation_ids=np.arange(3, dtype=np.int32)[:, None],
        frames=frames,
    )


def draw(rng, widths, there):
    return {m: rows_where_any(there[m], rng.normal(size=(*there[m].shape, widths[m]))) for m in widths}


def rows_where_any(there, x, fill=0.0):
    return np.where(there[..., None], x, fill).astype(np.float32)


def batch_for(model):
    return framed() if model.mode == "frame" else conversations()


def with_garbage(batch, fill):
    there = batch.available if batch.frames is None else batch.frames
    return batch.replace(features={m: rows_where_any(there[m], x, fill) for m, x in batch.features.items()})


def padded(batch, utterances=0, frames=0):
    """The batch with more padding behind every conversation and every utterance."""

    def longer(x, fill=0):
        return np.pad(x, [(0, 0), (0, utterances)] + [(0, 0)] * (x.ndim - 2), constant_values=fill)

    def more_frames(x):
        return np.pad(longer(x), [(0, 0), (0, 0), (0, frames)] + [(0, 0)] * (x.ndim - 3))

    return batch.replace(
        features={m: (longer if batch.frames is None else more_frames)(x) for m, x in batch.features.items()},
        mask=longer(batch.mask),
        labels=longer(batch.labels, -1),
        speakers=longer(batch.speakers, -1),
        available={m: longer(x) for m, x in batch.available.items()},
        frames=None if batch.frames is None else {m: more_frames(x) for m, x in batch.frames.items()},
    )


# The equations, one sequence after the other, in float64.


def sequences(batch):
    """What attention runs along: for each conversation, or each utterance's frames, modality -> (rows, presence)."""
    if batch.frames is None:
        spans = [(b, slice(0, n)) for b, n in enumerate(batch.mask.sum(1)) if n]
        there = batch.available
    else:
        spans = [(b, t) for b, t in zip(*np.nonzero(batch.mask), strict=True)]
        there = batch.frames
    return [{m: (np.float64(batch.features[m][span]), there[m][span]) for m in WIDTHS} for span in spans]


def convolution(kernel, x):
    half = len(kernel) // 2
    out = np.zeros((len(x), kernel.shape[2]))
    for i in range(len(x)):
        for tap, weight in enumerate(kernel):
            if 0 <= i + tap - half < len(x):
                out[i] += x[i + tap - half] @ weight
    return out


def positions(length, width):
    angles = [[p / 10000 ** (2 * (i // 2) / width) for i in range(width)] for p in range(length)]
    return np.array([[np.cos(a) if i % 2 else np.sin(a) for i, a in enumerate(row)] for row in angles])


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(p, x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]


def mean_of(rows, width):
    return rows.mean(0) if len(rows) else np.zeros(width)


def context(p, model, path, i, x, present):
    """C of one path in one sequence: [L, d], or [1, d] of a mean query."""
    source, target = path

    def project(name, modality, rows):
        if model.qkv == "identity":
            return rows
        return rows @ p[name][i if model.qkv == "per_path" else sorted(x).index(modality)]

    asking = x[target]
    if model.global_compression == "query_mean":
        asking = mean_of(asking[present[target]], model.d)[None]
    query, key = project("query", target, asking), project("key", source, x[source])
    value = project("value", source, x[source])
    visible = np.broadcast_to(present[source], (len(asking), len(x[source])))
    split = [np.split(rows, model.num_heads, axis=1) for rows in (query, key, value)]
    read = np.concatenate([attention(*head, visible)[0] for head in zip(*split, strict=True)], axis=1)
    return read @ p["output"][i] + p["output_bias"][i] if model.attn_out_proj else read


def enhance(p, statistics, model, xs, contexts, presents, sources, train):
    """One path's H in all sequences, and its new running statistics. Lists have one entry for each sequence."""
    compressed, counted = [], []
    for c, present, source in zip(contexts, presents, sources, strict=True):
        if model.global_compression in ("pooled", "pooled_plus_context"):
            c = mean_of(c[present], model.d)[None]
        whole = len(c) == 1 and model.global_compression not in ("per_position", "channel")
        compressed.append(linear(p["conv"], c))
        counted.append((present.any(keepdims=True) if whole else present) & source)
    new = None
    if model.compress_norm == "layer":
        normed = [layer_norm(p["norm"], rows, 1e-5) for rows in compressed]
    else:
        rows = np.concatenate([rows[real] for rows, real in zip(compressed, counted, strict=True)])
        mean, variance = (rows.mean(0), rows.var(0)) if train else (statistics["mean"], statistics["var"])
        normed = [(r - mean) / np.sqrt(variance + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"] for r in compressed]
        new = {
            "mean": 0.9 * statistics["mean"] + 0.1 * rows.mean(0),
            "var": 0.9 * statistics["var"] + 0.1 * rows.var(0, ddof=1),
        }
    enhanced = []
    for x, c, z, real, present in zip(xs, contexts, normed, counted, presents, strict=True):
        z = rows_where(real, np.where(z > 0, z, 0.01 * z))
        residual = x + z
        if model.global_compression == "pooled_plus_context":
            residual = residual + c
        h = residual
        if model.use_ffn:
            inner = residual if model.ffn_input == "residual" else x
            if model.ffn_pre_ln:
                inner = layer_norm(p["ffn"]["norm"], inner, 1e-6)
            h = residual + linear(p["ffn"]["outer"], gelu(linear(p["ffn"]["inner"], inner)))
        enhanced.append(rows_where(present, h))
    return enhanced, new


def lpgnet(variables, model, items, train=False):
    """The whole network. Returns what it computes for every real utterance, and its new running statistics."""
    p, statistics = variables["params"], variables.get("batch_stats", {})
    names = [m for m in MODALITIES if m in model.modalities]
    paths = [(m, m) for m in names] * model.use_intra
    paths += [(s, t) for t in names for s in names if s != t] * model.use_inter
    present = [{m: item[m][1] for m in names} for item in items]
    xs = []
    for item in items:
        xs.append({})
        for m in names:
            rows, there = item[m]
            x = convolution(p[f"conv_{m}"]["kernel"], rows_where(there, rows))
            if model.positional == "sinusoidal":
                x = x + positions(len(x), model.d)
            xs[-1][m] = rows_where(there, x)
    new = {}
    for block in range(model.blocks):
        enhanced, new[f"enhancement_{block}"] = {}, {"norm": {"mean": [], "var": []}}
        for i, (source, target) in enumerate(paths):
            path = (source, target)
            contexts = [
                rows_where(
                    there[target] if model.global_compression != "query_mean" else there[target].any(keepdims=True),
                    context(p.get(f"attention_{block}"), model, path, i, x, there),
                )
                for x, there in zip(xs, present, strict=True)
            ]
            enhanced[path], one = enhance(
                one_of(p[f"enhancement_{block}"], i),
                one_of(statistics.get(f"enhancement_{block}", {"norm": None})["norm"], i),
                model,
                [x[target] for x in xs],
                contexts,
                [there[target] for there in present],
                [there[source].any() for there in present],
                train,
            )
            if one:
                for name, value in one.items():
                    new[f"enhancement_{block}"]["norm"][name].append(value)
        xs = [
            {m: np.mean([enhanced[path][s] for path in paths if path[1] == m], axis=0) for m in names}
            for s in range(len(items))
        ]
    fusion = p["unimodal_fusion"]
    features = {}
    for k, m in enumerate(names):
        rows = []
        for s, there in enumerate(present):
            gated = []
            for i, path in enumerate(paths):
                if path[1] == m:
                    h = enhanced[path][s]
                    gated.append(
                        sigmoid(h @ fusion["unimodal"]["gate"]["kernel"][i]) * h if model.use_unimodal_gate else h
                    )
            reduced = rows_where(there[m], linear(one_of(fusion["reduction"], k), np.concatenate(gated, axis=1)))
            if model.mode == "frame":
                real = reduced[there[m]]
                if model.frame_pool == "attention" and len(real):
                    weights = softmax(real @ p["frame_pool"]["score"]["kernel"][k, :, 0])
                    reduced = (weights @ real)[None]
                else:
                    reduced = mean_of(real, model.d)[None]
            rows.append(reduced)
        features[m] = np.concatenate(rows)
    there = {m: np.concatenate([[x[m].any()] if model.mode == "frame" else x[m] for x in present]) for m in names}
    gates = {}
    if len(names) == 1:
        fused = features[names[0]]
    elif model.use_multimodal_gate:
        scores = np.stack([features[m] @ p["multimodal_gate"]["gate"]["kernel"] for m in names])
        powers = np.exp(scores) * np.stack([there[m] for m in names])[..., None]
        weights = powers / np.maximum(powers.sum(0), 1e-300)
        gates = dict(zip(names, weights, strict=True))
        fused = sum(weights[k] * features[m] for k, m in enumerate(names))
    elif model.ungated_fusion == "concat":
        fused = linear(p["concatenation"], np.concatenate([features[m] for m in names], axis=1))
    else:
        count = sum(np.float64(there[m]) for m in names)
        fused = sum(features.values()) / np.maximum(count, 1)[:, None]
    unimodal = {}
    if len(names) > 1:
        students = [one_of(p["heads"]["unimodal"], k) for k in range(len(names))]
        unimodal = {m: linear(head, np.maximum(features[m], 0)) for m, head in zip(names, students, strict=True)}
    return {
        "logits": linear(p["heads"]["fused"], fused),
        "unimodal_logits": unimodal,
        "features": features,
        "fused": fused,
        "gates": gates,
    }, new


def objective(out, labels, there, loss):
    """L = γ1 L_task + γ2 Σ_m CE_m + γ3 Σ_m KL_m over real utterances, a modality's where it is there."""

    def cross_entropy(logits, where):
        total = count = 0.0
        for row, label in zip(logits[where], labels[where], strict=True):
            if label >= 0:
                total -= loss.class_weights[label] * np.log(softmax(row)[label])
                count += loss.class_weights[label]
        return total / count

    value = loss.gamma_task * cross_entropy(out["logits"], np.ones(len(labels), bool))
    for m, logits in out["unimodal_logits"].items():
        value += loss.gamma_hard * cross_entropy(logits, there[m])
        divergences = []
        for teacher, student in zip(out["logits"][there[m]], logits[there[m]], strict=True):
            teacher, student = softmax(teacher / loss.tau), softmax(student / loss.tau)
            divergences.append((teacher * (np.log(teacher) - np.log(student))).sum())
        value += loss.gamma_soft * np.mean(divergences)
    return value


# The module under test.


@functools.cache
def drawn_variables(model):
    """Parameters and running statistics away from where they start."""
    batch = batch_for(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(1)
    statistics = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (rng.normal(size=leaf.shape) ** 2 + (path[-1].key == "var") * 0.3).astype(np.float32),
        shapes.get("batch_stats", {}),
    )
    return {"params": draw_parameters(model, batch)} | ({"batch_stats": statistics} if statistics else {})


def total(terms):
    return sum(weight * values / jnp.maximum(count, 1e-6) for weight, values, count in terms.values())


@functools.cache
def predictor(model):
    return jax.jit(model.apply)


def predict(model, batch):
    return predictor(model)(drawn_variables(model), batch)


@functools.cache
def trainer(model, loss=LOSS):
    """Returns ((loss, (output, statistics)), gradients) of training without dropout."""

    def objective(params, statistics, batch):
        variables = {"params": params, **statistics}
        output, statistics = model.apply(variables, batch, train=True, mutable=list(statistics))
        return total(loss(output, batch)), (output, statistics)

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def train(model, batch, variables=None):
    variables = dict(variables or drawn_variables(model))
    return trainer(model)(variables.pop("params"), variables, batch)


def close(found, expected, name, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def compare(output, expected, mask):
    for name, value in expected.items():
        jax.tree.map(lambda x, y, name=name: close(x[mask], y, name), getattr(output, name), value)
    assert set(output.unimodal_logits) == set(expected["unimodal_logits"])
    assert set(output.gates) == set(expected["gates"])


def check_against_the_equations(model):
    """Both passes, the loss, its gradient along a random direction of every parameter, the running statistics."""
    batch = batch_for(model)
    variables, items = float64(drawn_variables(model)), sequences(batch)
    dirty = with_garbage(batch, 7.0)
    compare(predict(model, dirty), lpgnet(variables, model, items)[0], batch.mask)

    labels = batch.labels[batch.mask]
    there = {m: batch.available[m][batch.mask] for m in model.modalities}

    def loss_of(params):
        return objective(lpgnet({**variables, "params": params}, model, items, train=True)[0], labels, there, LOSS)

    (value, (output, new)), gradient = train(model, dirty)
    expected, statistics = lpgnet(variables, model, items, train=True)
    compare(output, expected, batch.mask)
    close(value, loss_of(variables["params"]), "loss")
    if "batch_stats" in variables:
        jax.tree.map(
            lambda x, y: close(x, y, "running statistics"),
            new["batch_stats"],
            {
                block: {"norm": jax.tree.map(np.stack, norm["norm"], is_leaf=lambda x: isinstance(x, list))}
                for block, norm in statistics.items()
            },
        )
    leaves, tree = jax.tree.flatten(variables["params"])
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(gradient)[0]]
    rng, step = np.random.default_rng(2), 1e-6
    for i, (name, leaf, slope) in enumerate(zip(names, leaves, jax.tree.leaves(gradient), strict=True)):
        direction = rng.normal(size=leaf.shape)
        ahead, behind = (
            loss_of(tree.unflatten([*leaves[:i], leaf + s * step * direction, *leaves[i + 1 :]])) for s in (1, -1)
        )
        # The sum may cancel: single precision is 1e-5 of what it could have been.
        scale = np.linalg.norm(slope) * np.linalg.norm(direction)
        found = (np.float64(slope) * direction).sum()
        close(found, (ahead - behind) / (2 * step), name, rtol=0, atol=2e-5 + 1e-5 * scale)


FRAME = {"mode": "frame"}
TOGETHER = [
    {},
    {
        "global_compression": "per_position",
        "kernel_size": 1,
        "positional": "sinusoidal",
        "num_heads": 2,
        "attn_out_proj": True,
        "ungated_fusion": "mean",
        "use_multimodal_gate": False,
    },
    FRAME
    | {
        "global_compression": "query_mean",
        "qkv": "shared",
        "ffn_input": "parallel",
        "ffn_mult": 1,
        "blocks": 2,
        "frame_pool": "attention",
    },
]
ALONE = [
    FRAME,
    *({"global_compression": choice} for choice in ("per_position", "query_mean", "pooled_plus_context", "channel")),
    *(FRAME | {"global_compression": choice} for choice in ("per_position", "pooled_plus_context", "channel")),
    {"global_compression": "pooled_plus_context", "attn_out_proj": True},
    {"global_compression": "query_mean", "num_heads": 4, "attn_out_proj": True},
    {"compress_norm": "layer"},
    {"compress_norm": "layer", "global_compression": "per_position"},
    {"kernel_size": 1},
    {"kernel_size": 5},
    {"positional": "sinusoidal"},
    FRAME | {"positional": "sinusoidal"},
    {"num_heads": 2},
    {"attn_out_proj": True},
    {"qkv": "shared"},
    {"qkv": "identity"},
    {"ffn_input": "parallel"},
    {"ffn_input": "parallel", "ffn_pre_ln": False},
    {"ffn_pre_ln": False},
    {"ffn_mult": 1},
    {"ffn_mult": 4},
    {"blocks": 3},
    {"use_intra": False},
    {"use_inter": False},
    {"use_inter": False, "blocks": 2},
    {"use_ffn": False},
    {"use_unimodal_gate": False},
    {"use_multimodal_gate": False},
    {"use_multimodal_gate": False, "ungated_fusion": "mean"},
    {"use_unimodal_gate": False, "use_multimodal_gate": False},
    FRAME | {"frame_pool": "attention"},
    {"initialization": "lecun_normal"},
]
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(MODALITIES, size)]


GOLDEN = [-0.207156, 0.027154, -0.200550, -0.248675, -0.332435, -0.078872, 0.513090, 4.925508, 4.919293]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items()) or "default"


@pytest.mark.parametrize("options", TOGETHER, ids=named)
def test_everything_matches_the_equations(options):
    check_against_the_equations(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("options", ALONE, ids=named)
def test_each_option_matches_the_equations(options):
    check_against_the_equations(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("mode", ["utterance", "frame"])
def test_each_subset_of_modalities_matches_the_equations(modalities, mode):
    check_against_the_equations(small(modalities=modalities, mode=mode))


@pytest.mark.parametrize(("d", "millions"), [(128, 1.27), (256, 3.88), (512, 13.1), (1024, 47.7)])
def test_it_is_as_large_as_computed_by_hand(d, millions):
    """For 768-dimensional features of four emotions: LPGNet claims to be lighter than SDT's 36 million."""
    batch = conversations()
    wide = batch.replace(features={m: jax.ShapeDtypeStruct((*batch.mask.shape, 768), np.float32) for m in WIDTHS})
    shapes = jax.eval_shape(LPGNet(C, d=d).init, jax.random.key(0), wide)
    by_hand = 2 * 3 * 768 * d + 4 * (3 * d**2 + d**2 + d + 2 * d + 2 * d + 4 * d**2 + 3 * d + d**2)
    by_hand += 2 * (2 * d**2 + d) + d**2 + 3 * (C * d + C)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == by_hand
    assert abs(by_hand / 1e6 - millions) < 0.06


def test_it_starts_as_pytorch_would():
    """A convolution's inputs are all that its kernel covers; each path's matrices are drawn on their own."""
    model = LPGNet(C, d=64)
    params = jax.jit(model.init)(jax.random.key(0), conversations())["params"]
    bounds = {
        "conv_text": (params["conv_text"]["kernel"], 3 * WIDTHS["text"]),
        "conv 1x1": (params["enhancement_0"]["conv"]["kernel"], 64),
        "reduction": (params["unimodal_fusion"]["reduction"]["kernel"], 128),
        "gate": (params["multimodal_gate"]["gate"]["kernel"], 64),
    }
    for name, (kernel, fan_in) in bounds.items():
        assert 0.97 * fan_in**-0.5 < np.abs(kernel).max() <= fan_in**-0.5, name
    for stack in (params["enhancement_0"]["conv"]["kernel"], params["attention_0"]["query"]):
        assert len({float(kernel[0, 0]) for kernel in stack}) == 4


def test_the_order_in_which_modalities_are_listed_does_not_matter():
    batch = conversations()
    one, other = (predict(small(modalities=m), batch) for m in (("text", "audio"), ("audio", "text")))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_property_3_two_modalities_are_weighed_by_the_sigmoid_of_their_difference():
    model, batch = small(), conversations()
    output = predict(model, batch)
    kernel = np.float64(drawn_variables(model)["params"]["multimodal_gate"]["gate"]["kernel"])
    both = batch.available["text"] & batch.available["audio"]
    text, audio = (np.float64(output.features[m])[both] for m in ("text", "audio"))
    weight = sigmoid((text - audio) @ kernel)
    close(output.gates["text"][both], weight, "gate")
    close(output.gates["audio"][both], 1 - weight, "gate")
    close(output.fused[both], weight * text + (1 - weight) * audio, "fused")
    close(gate_means(output, batch)["text"][both], weight.mean(-1), "weights")


@pytest.mark.parametrize(
    ("options", "equivariant"),
    [({"kernel_size": 1}, True), ({}, False), ({"kernel_size": 1, "positional": "sinusoidal"}, False)],
    ids=["kernel 1", "kernel 3", "kernel 1 with positions"],
)
def test_property_9_only_kernel_1_without_positions_ignores_the_order_of_utterances(options, equivariant):
    model, batch = small(**options), conversations()
    order = np.array([3, 0, 4, 1, 2, 5, 6])  # within the first conversation's five utterances

    def shuffled(x):
        return x[:, order] if x.shape[1] == T else x

    straight, permuted = predict(model, batch).logits[0], predict(model, jax.tree.map(shuffled, batch)).logits[0]
    difference = np.abs(straight[order[:5]] - permuted[:5]).max()
    assert (difference < 1e-5) if equivariant else (difference > 1e-2)


def test_property_10_heads_that_agree_have_nothing_to_distil():
    model, batch = small(), conversations()
    variables = drawn_variables(model)
    heads = jax.tree.map(np.zeros_like, variables["params"]["heads"])
    heads["fused"]["bias"] = np.float32([1, 0, -2, 3])
    heads["unimodal"]["bias"] = np.tile(heads["fused"]["bias"], (2, 1))
    output = predictor(model)({**variables, "params": variables["params"] | {"heads": heads}}, batch)
    for m in model.modalities:
        close(LOSS(output, batch)[f"soft_{m}"][1], 0, "soft labels", atol=1e-6)
        assert LOSS(predict(model, batch), batch)[f"soft_{m}"][1] > 0.1


# Between two others, the first conversation has a neighbour on either side.
ORDER, LONGER = ((3, 0, 1), (2,)), 10
PACKED = [
    {"positional": "sinusoidal", "num_heads": 2},
    {"global_compression": "per_position", "kernel_size": 1, "positional": "sinusoidal", "qkv": "shared"},
    {"global_compression": "query_mean", "kernel_size": 5, "qkv": "identity", "blocks": 2},
    {"global_compression": "pooled_plus_context", "kernel_size": 13, "modalities": MODALITIES},
    {"global_compression": "channel", "attn_out_proj": True},
]
PACKED_ALONE = [
    {"global_compression": compression, "kernel_size": kernel, "positional": positional, "qkv": qkv}
    for compression, (kernel, positional, qkv) in itertools.product(
        COMPRESSIONS, [(1, "none", "identity"), (3, "none", "shared"), (5, "sinusoidal", "per_path")]
    )
]
PACKED_ALONE += [{"compress_norm": "layer", "modalities": ("audio",)}, {"use_intra": False, "use_inter": True}]


def check_packed(model):
    """Outputs, loss, gradients and running statistics are those of conversations in rows of their own."""
    batch = with_garbage(conversations(), np.nan)
    together = packed(batch, ORDER, LONGER)
    (value, (output, statistics)), gradients = train(model, batch)
    (found_value, (found, found_statistics)), found_gradients = train(model, together)
    jax.tree.map(lambda x, y: close(apart(x, together, batch)[batch.mask], y[batch.mask], "output"), found, output)
    close(found_value, value, "loss")
    jax.tree.map(lambda x, y: close(x, y, "statistics"), found_statistics, statistics)
    jax.tree.map(lambda x, y: close(x, y, "gradients", rtol=1e-4), found_gradients, gradients)


@pytest.mark.parametrize("options", PACKED, ids=named)
def test_conversations_of_one_row_do_not_influence_each_other(options):
    check_packed(small(**options))


@pytest.mark.slow
@pytest.mark.parametrize("options", PACKED_ALONE, ids=named)
def test_conversations_of_one_row_do_not_influence_each_other_in_any_form(options):
    check_packed(small(**options))


MODES = pytest.mark.parametrize("mode", ["utterance", "frame"])


@MODES
def test_property_1_padding_changes_nothing(mode):
    """Neither a prediction nor, since statistics are of what is real, a step of training."""
    model = small(mode=mode)
    short, long = batch_for(model), padded(batch_for(model), utterances=3, frames=2)
    results = [(predict(model, batch), *train(model, batch)) for batch in (short, long)]
    masks = short.mask, long.mask
    for outputs in ([r[0] for r in results], [r[1][1][0] for r in results]):
        cut = [jax.tree.map(lambda x, mask=mask: x[mask], output) for output, mask in zip(outputs, masks, strict=True)]
        jax.tree.map(lambda a, b: close(a, b, "output"), *cut)
    rest = [(value, statistics, gradients) for _, (value, (_, statistics)), gradients in results]
    jax.tree.map(lambda a, b: close(a, b, "loss, statistics, gradients", rtol=1e-4), *rest)


@MODES
@pytest.mark.parametrize("garbage", [1e6, np.nan])
def test_what_stands_under_masks_does_not_matter(mode, garbage):
    model = small(mode=mode)
    clean, dirty = (train(model, with_garbage(batch_for(model), fill)) for fill in (0.0, garbage))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


@MODES
def test_an_absent_modality_is_zero_with_no_weight(mode):
    model = small(mode=mode)
    batch = batch_for(model)
    output = predict(model, batch)
    for m in model.modalities:
        absent = ~batch.available[m]
        assert (absent & batch.mask).any()
        np.testing.assert_array_equal(output.features[m][absent], 0)
        np.testing.assert_array_equal(output.gates[m][absent], 0)
        (other,) = set(model.modalities) - {m}
        alone = absent & batch.available[other]
        close(output.gates[other][alone], 1, "gate")
        close(output.fused[alone], output.features[other][alone], "fused")
    neither = batch.mask & ~batch.available["text"] & ~batch.available["audio"]
    assert neither.any()
    bias = drawn_variables(model)["params"]["heads"]["fused"]["bias"]
    close(output.logits[neither], np.broadcast_to(bias, (neither.sum(), C)), "logits")


def without(batch, *modalities):
    nothing = {m: np.zeros_like(batch.mask) for m in modalities}
    frames = None
    if batch.frames is not None:
        frames = {**batch.frames, **{m: np.zeros_like(batch.frames[m]) for m in modalities}}
    return batch.replace(available={**batch.available, **nothing}, frames=frames)


def test_frames_of_an_unavailable_modality_do_not_count():
    model, batch = small(**FRAME), framed()
    kept = without(batch, "audio").replace(frames=batch.frames)
    jax.tree.map(np.testing.assert_array_equal, predict(model, kept), predict(model, without(batch, "audio")))


EDGES = {
    "all padding": lambda batch: jax.tree.map(np.zeros_like, batch).replace(labels=np.full_like(batch.labels, -1)),
    "one sequence": lambda batch: jax.tree.map(lambda x: np.concatenate([x[:1], np.zeros_like(x[1:])]), batch),
    "unlabelled": lambda batch: batch.replace(labels=np.full_like(batch.labels, -1)),
    "no audio": lambda batch: without(batch, "audio"),
    "no modality": lambda batch: without(batch, "text", "audio"),
}


@MODES
@pytest.mark.parametrize("name", EDGES)
def test_training_stays_finite_at_the_edges(name, mode):
    model = small(mode=mode)
    result = train(model, EDGES[name](batch_for(model)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    (value, (_, statistics)), gradients = result
    if name == "all padding":
        assert value == 0
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))
        expected = drawn_variables(model)["batch_stats"]
        jax.tree.map(np.testing.assert_array_equal, statistics["batch_stats"], expected)


def test_speakers_do_not_matter():
    model, batch = small(), conversations()
    others = batch.replace(speakers=np.where(batch.mask, 1 - batch.speakers % 2 * 5, -1).astype(np.int32))
    assert (others.speakers != batch.speakers).any()
    jax.tree.map(np.testing.assert_array_equal, train(model, batch), train(model, others))


@MODES
def test_dropout_depends_on_the_sequence_alone(key, mode):
    """Through a permuted batch the noise follows its conversation, and utterances' frames get noise of their own."""
    model = small(
        mode=mode, dropout_rate=0.4, attention_dropout_rate=0.2, positional="sinusoidal", compress_norm="layer"
    )
    batch = batch_for(model)
    order = np.random.default_rng(0).permutation(len(batch.mask))
    apply = jax.jit(functools.partial(model.apply, train=True))
    variables, streams = drawn_variables(model), {"dropout": key()}
    straight = apply(variables, batch, rngs=streams)
    permuted = apply(variables, jax.tree.map(lambda x: x[order], batch), rngs=streams)
    jax.tree.map(lambda a, b: close(a[order], b, "permuted"), straight, permuted)
    elsewhere = apply(variables, batch, rngs={"dropout": key()})
    assert np.abs(elsewhere.logits - straight.logits)[batch.mask].max() > 1e-2
    # The same content everywhere, and a number for each: what is left is the noise.
    same = jax.tree.map(lambda x: np.broadcast_to(x[:1, :1], x.shape), batch).replace(
        conversation_ids=batch.conversation_ids
    )
    features = apply(variables, same, rngs=streams).features["text"]
    rows = np.asarray(features).reshape(-1, model.d)[:: 1 if mode == "frame" else T]
    assert len({row.tobytes() for row in np.round(rows, 4)}) == len(rows)


@pytest.mark.parametrize(
    ("mode", "backend", "order"),
    [
        ("utterance", "shard_map", None),
        ("utterance", "shard_map", ((3, 1), (2,), (0,))),
        pytest.param("frame", "shard_map", None, marks=pytest.mark.slow),
        pytest.param("utterance", "pmap", None, marks=pytest.mark.slow),
        pytest.param("frame", "pmap", None, marks=pytest.mark.slow),
    ],
    ids=lambda value: "packed" if isinstance(value, tuple) else None,
)
def test_a_step_is_the_same_on_eight_devices(mode, backend, order):
    """Parameters, running statistics and loss, with dropout, and with devices that hold padding alone."""
    model = SPEC.build(
        defaults("lpgnet")["model"] | {"num_classes": C, "d": 8, "mode": mode, "dropout_rate": 0.3},
        defaults("lpgnet")["loss"],
    )
    batch = batch_for(model.module)
    batch = packed(batch, order, LONGER) if order else batch
    empty = 8 - len(batch.mask)
    batch = jax.tree.map(lambda x: np.pad(x, [(0, empty)] + [(0, 0)] * (x.ndim - 1)), batch)
    batch = batch.replace(conversation_ids=np.where(batch.mask.any(1)[:, None], batch.conversation_ids, -1))
    batch = batch.replace(labels=np.where(batch.mask, batch.labels, -1))
    # The network that evaluates is that of the running statistics: two steps, so that they count.
    states, losses = zip(
        *(two_steps(model, batch, mode, *mapping) for mapping in ((backend, 8), ("jit", 1))), strict=True
    )
    close(losses[0], losses[1], "loss")
    jax.tree.map(lambda a, b: close(a, b, "state", atol=2e-6), *states)


@functools.cache
def stepper(model, backend, devices):
    parallel, optimizer = make_parallel(backend, devices), optax.sgd(0.1)
    return parallel, optimizer, parallel.step(functools.partial(train_step, model=model, optimizer=optimizer))


def two_steps(model, batch, mode, backend, devices):
    parallel, optimizer, step = stepper(model, backend, devices)
    first = create_train_state(model, optimizer, {m: WIDTHS[m] for m in ("text", "audio")}, 0, frames=mode == "frame")
    before = jax.device_get((first.params, first.model_state))
    state, losses = parallel.replicate(first), []
    for _ in range(2):
        state, metrics = step(state, batch)
        assert metrics.finite
        losses.append(metrics.loss)
    after = jax.device_get((state.params, state.model_state))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, before, after)
    # The normalization after this bias takes it away again, so that rounding alone moves it.
    del moved[0]["enhancement_0"]["conv"]["bias"]
    assert all(jax.tree.leaves(moved))
    return after, np.array(losses)


@pytest.mark.slow
def test_running_statistics_are_saved_restored_and_used(tmp_path):
    """A run that stops after its first epoch and resumes ends where an uninterrupted one does."""
    corpus = tiny_corpus()

    def run(workdir, epochs):
        config = with_variants(base_config("lpgnet"), "tiny")
        config.training.update(epochs=epochs, batch_size=4, buckets=1, parallel="jit")
        config.optimizer.learning_rate = 0.01
        config.selection = "last"
        train_run(config, corpus, workdir)
        write_results(workdir, corpus, log=lambda line: None)
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            like = start(read_config(workdir), corpus)
            template = like.state, like.pipeline.normalization, like.mapping.state_sharding
            return checkpoints.restore(checkpoints.newest, *template).state, like

    first, like = run(tmp_path / "interrupted", 1)
    second, _ = run(tmp_path / "interrupted", 2)
    whole, _ = run(tmp_path / "whole", 2)
    jax.tree.map(np.testing.assert_array_equal, second.variables, whole.variables)
    fresh, earlier, later = (s.model_state["batch_stats"]["enhancement_0"]["norm"] for s in (like.state, first, second))
    assert (earlier["mean"] != fresh["mean"]).any() and (later["mean"] != earlier["mean"]).any()

    def predictions(variables):
        predictor = dataclasses.replace(like.predictor, variables=variables)
        return np.concatenate(predictor.predict_normalized(like.pipeline.examples["validation"]).probabilities)

    written = pd.read_csv(tmp_path / "interrupted" / "predictions" / "validation.csv")
    columns = [name for name in written if name.startswith("probability")]
    close(written[columns], predictions(second.variables), "probabilities", atol=1e-4)
    frozen = second.variables | like.state.model_state
    assert np.abs(predictions(frozen) - written[columns]).max(axis=None) > 1e-3


UNKNOWN = {
    "mode": "utterance, frame",
    "positional": "none, sinusoidal",
    "qkv": "per_path, shared, identity",
    "global_compression": "pooled, per_position, query_mean, pooled_plus_context, channel",
    "compress_norm": "batch, layer",
    "ffn_input": "residual, parallel",
    "ungated_fusion": "concat, mean",
    "frame_pool": "mean, attention",
    "initialization": "torch_uniform, lecun_normal",
}


@pytest.mark.parametrize("option", UNKNOWN)
def test_unknown_option_values_are_refused_with_the_choices(option):
    with pytest.raises(ValueError, match=f"unknown {option} 'other'; choose one of {UNKNOWN[option]}$"):
        small(**{option: "other"}).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, r"modalities must be some of .*, not \(\)"),
        ({"modalities": ("text", "text")}, "each once"),
        ({"modalities": ("text", "smell")}, "smell"),
        (
            {"use_intra": False, "use_inter": False},
            "no attention path is left: modalities text, audio, use_intra False",
        ),
        (
            {"modalities": ("audio",), "use_intra": False},
            "no attention path is left: modalities audio, use_intra False",
        ),
        ({"global_compression": "channel", "compress_norm": "layer"}, "channel needs compress_norm batch"),
        ({"kernel_size": 4}, "kernel_size must be odd, not 4"),
        ({"num_heads": 3}, "num_heads must divide d, but 3 does not divide 8"),
        ({"blocks": 0}, "blocks must be at least 1, not 0"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"attention_dropout_rate": -0.1}, "attention_dropout_rate must be at least 0 and below 1, not -0.1"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


@pytest.mark.parametrize(
    ("mode", "batch", "message"),
    [
        ("utterance", framed, "mode is utterance, but the batch has frames"),
        ("frame", conversations, "mode is frame, but the batch has one vector per utterance"),
    ],
)
def test_a_batch_of_the_other_mode_is_refused(mode, batch, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(mode=mode).init, jax.random.key(0), batch())


def test_created_from_its_default_sections():
    sections = defaults("lpgnet")
    assert sections["model"]["name"] == "lpgnet"
    assert sections["model"]["modalities"] == ("text", "audio")
    sections["model"]["num_classes"] = C
    assert SPEC.build(sections["model"], sections["loss"]) == Model(
        SPEC, LPGNet(C), SelfDistillationLoss(1.5, 1.0, 0.3)
    )
    with pytest.raises(ValueError, match="unknown qkv 'all'"):
        SPEC.build(sections["model"] | {"qkv": "all"}, sections["loss"])


def test_golden_values():
    """A fixed model on fixed input: numbers that a change of formula, initializer or parameter name would move."""
    model, batch = small(), conversations()
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    output = predictor(model)(variables, batch)
    found = [*output.logits[0, 0], output.unimodal_logits["audio"][2, 1, 0], output.fused[3, 2, 0]]
    weights = gate_means(output, batch)
    found += [weights["audio"][2, 1], total(LOSS(output, batch)), train(model, batch, variables)[0][0]]
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-4)
