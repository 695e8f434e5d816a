"""LPGNet against a float64 transcription of its equations, and the laws that hold whatever its parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import attention, draw_parameters, float64, linear, one_of, rows_where, sigmoid, softmax

from jmer.batch import MODALITIES, Batch
from jmer.models.lpgnet import LPGNet, create, defaults
from jmer.models.self_distillation import SelfDistillationLoss

WIDTHS = {"text": 6, "audio": 4, "visual": 5}
FRAMES = {"text": 4, "audio": 6, "visual": 3}
LENGTHS = (5, 1, 7, 3, 0)
T, C = 7, 4
# The fused head's own label, the students', and what they take over: each weighs enough to be seen.
LOSS = SelfDistillationLoss(1.5, 1.0, 0.8, tau=2.0, class_weights=(0.5, 2.0, 1.0, 3.0))


def small(**switches):
    return LPGNet(**{"num_classes": C, "d": 8, "dropout": 0.0} | switches)


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
        index=np.where(mask.any(1), np.arange(len(LENGTHS)), -1).astype(np.int32),
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
        index=np.arange(3, dtype=np.int32),
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
    split = [np.split(rows, model.heads, axis=1) for rows in (query, key, value)]
    read = np.concatenate([attention(*head, visible)[0] for head in zip(*split, strict=True)], axis=1)
    return read @ p["output"][i] + p["output_bias"][i] if model.attn_out_proj else read


def enhance(p, statistics, model, xs, contexts, presents, sources, train):
    """One path's H in all sequences, and its new running statistics. Lists have one entry for each sequence."""
    compressed, heard = [], []
    for c, present, source in zip(contexts, presents, sources, strict=True):
        if model.global_compression in ("pooled", "pooled_plus_context"):
            c = mean_of(c[present], model.d)[None]
        whole = len(c) == 1 and model.global_compression not in ("per_position", "channel")
        compressed.append(linear(p["conv"], c))
        heard.append((present.any(keepdims=True) if whole else present) & source)
    new = None
    if model.compress_norm == "layer":
        normed = [layer_norm(p["norm"], rows, 1e-5) for rows in compressed]
    else:
        rows = np.concatenate([rows[real] for rows, real in zip(compressed, heard, strict=True)])
        mean, variance = (rows.mean(0), rows.var(0)) if train else (statistics["mean"], statistics["var"])
        normed = [(r - mean) / np.sqrt(variance + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"] for r in compressed]
        new = {
            "mean": 0.9 * statistics["mean"] + 0.1 * rows.mean(0),
            "var": 0.9 * statistics["var"] + 0.1 * rows.var(0, ddof=1),
        }
    enhanced = []
    for x, c, z, real, present in zip(xs, contexts, normed, heard, presents, strict=True):
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
    unimodal = {m: linear(one_of(p["heads"]["unimodal"], k), np.maximum(features[m], 0)) for k, m in enumerate(names)}
    return {
        "logits": linear(p["heads"]["fused"], fused),
        "unimodal_logits": unimodal if len(names) > 1 else {},
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
        close((np.float64(slope) * direction).sum(), (ahead - behind) / (2 * step), name, rtol=2e-5, atol=2e-5)


TOGETHER = [
    {},
    {
        "global_compression": "per_position",
        "positional": "sinusoidal",
        "heads": 2,
        "attn_out_proj": True,
        "conv_kernel": 1,
    },
    {
        "global_compression": "query_mean",
        "qkv": "shared",
        "ffn_input": "parallel",
        "compress_norm": "layer",
        "blocks": 2,
    },
]


def named(switches):
    return ",".join(f"{name}={value}" for name, value in switches.items()) or "default"


@pytest.mark.parametrize("switches", TOGETHER, ids=named)
def test_everything_matches_the_equations(switches):
    check_against_the_equations(small(**switches))
