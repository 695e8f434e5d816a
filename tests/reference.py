"""The papers' formulas in float64 NumPy, one conversation and one utterance at a time, nothing padded.

Parameters have the names that the Flax modules give them; nothing else is shared with the code under test.
"""

import itertools

import jax
import numpy as np


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def draw_parameters(module, *arguments, seed=0, spread=0.4, **options):
    """Random parameters in the shapes that the module asks for, biases and scales among them."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: module.init(key, *arguments, **options), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (rng.normal(size=leaf.shape) * spread + (path[-1].key == "scale")).astype(np.float32),
        shapes["params"],
    )


def float64(tree):
    return jax.tree.map(np.float64, tree)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def linear(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def layer_norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def attention(query, key, value, visible):
    """One head: query [Tq, D], key and value [Tk, D], visible [Tq, Tk]. Returns what was read and the weights."""
    weights = np.zeros(visible.shape)
    for i, seen in enumerate(visible):
        if seen.any():
            weights[i, seen] = softmax(key[seen] @ query[i] / np.sqrt(query.shape[1]))
    return weights @ value, weights


def read_heads(p, query, key, value, visible, heads):
    """What several heads of attention read, side by side, before the last layer, [Tq, D]."""
    parts = [np.split(linear(p[n], x), heads, axis=1) for n, x in (("query", query), ("key", key), ("value", value))]
    return np.concatenate([attention(*head, visible)[0] for head in zip(*parts, strict=True)], axis=1)


def post_norm_encoder_layer(p, x, heads):
    """A layer of a transformer, x [n, D] -> [n, D]."""
    attend, refine = p["self_attention"], p["feed_forward"]
    read = read_heads(attend["attention"], x, x, x, np.ones((len(x), len(x)), bool), heads)
    x = layer_norm(attend["norm"], x + linear(attend["attention"]["output"], read))
    return layer_norm(refine["norm"], x + linear(refine["outer"], np.maximum(linear(refine["inner"], x), 0)))


def gru_cell(p, name, x, h):
    """PyTorch's gates: reset, update, candidate."""
    of_input = np.split(p[f"{name}_input_kernel"], 3, axis=1), np.split(p[f"{name}_input_bias"], 3)
    of_state = np.split(p[f"{name}_state_kernel"], 3, axis=1), np.split(p[f"{name}_state_bias"], 3)
    (wr, wz, wn), (br, bz, bn) = of_input
    (ur, uz, un), (cr, cz, cn) = of_state
    r = sigmoid(x @ wr + br + h @ ur + cr)
    z = sigmoid(x @ wz + bz + h @ uz + cz)
    n = np.tanh(x @ wn + bn + r * (h @ un + cn))
    return (1 - z) * n + z * h


def bigru(p, x, bidirectional=True):
    """x [n, D] -> [n, both directions]."""
    hidden = p["forward_state_kernel"].shape[0]
    outputs = []
    for name, order in (("forward", 1), ("backward", -1))[: 2 if bidirectional else 1]:
        h, states = np.zeros(hidden), []
        for row in x[::order]:
            h = gru_cell(p, name, row, h)
            states.append(h)
        outputs.append(np.stack(states[::order]))
    return np.concatenate(outputs, axis=1)


def lstm_cell(p, name, x, state):
    """PyTorch's gates: input, forget, candidate, output. The state is (output, memory)."""
    h, c = state
    of_input = x @ p[f"{name}_input_kernel"] + p[f"{name}_input_bias"]
    i, f, g, o = np.split(of_input + h @ p[f"{name}_state_kernel"] + p[f"{name}_state_bias"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def stacked_rnn(p, x, cell, layers=2):
    """x [n, D] -> [n, both directions], each layer on the whole output of the one below."""
    for layer in range(layers):
        outputs = []
        for direction, order in (("forward", 1), ("backward", -1)):
            name = f"layer_{layer}_{direction}"
            zero, states = np.zeros(len(p[f"{name}_state_kernel"])), []
            state = (zero, zero) if cell == "lstm" else zero
            for row in x[::order]:
                state = lstm_cell(p, name, row, state) if cell == "lstm" else gru_cell(p, name, row, state)
                states.append(state[0] if cell == "lstm" else state)
            outputs.append(np.stack(states[::order]))
        x = np.concatenate(outputs, axis=1)
    return x


def predecessors(speakers, window=1):
    """For each utterance the earlier ones it is linked to, found by walking back."""
    linked = []
    for i, speaker in enumerate(speakers):
        found, own = [], 0
        for j in reversed(range(i)):
            found.append(j)
            own += speakers[j] == speaker
            if own == window:
                break
        linked.append(sorted(found))
    return linked


def dag_layer(p, x, speakers, window=1, slope=1.0):
    """x [n, H] -> [n, H]."""
    states = []
    for i, linked in enumerate(predecessors(speakers, window)):
        message = np.zeros(x.shape[1])
        if linked:
            scores = [
                (x[i] @ p["score_query_kernel"] + states[j] @ p["score_key_kernel"]).item() + p["score_bias"]
                for j in linked
            ]
            weights = softmax(np.array([score if score > 0 else slope * score for score in scores]))
            for j, weight in zip(linked, weights, strict=True):
                relation = "same_speaker_kernel" if speakers[j] == speakers[i] else "other_speaker_kernel"
                message = message + weight * (states[j] @ p[relation])
        states.append(gru_cell(p, "node", x[i], message) + gru_cell(p, "context", message, x[i]))
    return np.stack(states)


def dag_encoder(p, x, speakers, *, layers, window=1, output="concat_proj", slope=1.0):
    states = [np.maximum(linear(p["input"], x), 0)]
    for layer in range(layers):
        states.append(dag_layer(p[f"layer_{layer}"], states[-1], speakers, window, slope))
    if output == "last":
        return states[-1]
    return np.maximum(linear(p["output"], np.concatenate([*states, x], axis=1)), 0)


def language_guided_block(p, target, source, residual, visible, heads):
    """Eqs. 4-6. Returns [Tq, D] and the weights [H, Tq, Tk]."""
    query = np.split(linear(p["query_projection"], target), heads, axis=1)
    key = np.split(linear(p["key_projection"], source), heads, axis=1)
    value = np.split(linear(p["value_projection"], source), heads, axis=1)
    read, weights = zip(*(attention(*head, visible) for head in zip(query, key, value, strict=True)), strict=True)
    x = layer_norm(p["attention_norm"], linear(p["attention_output"], np.concatenate(read, axis=1)) + residual)
    refined = linear(p["ffn_output"], np.maximum(linear(p["ffn_inner"], x), 0))
    return layer_norm(p["ffn_norm"], refined + x), np.stack(weights)


def atmosphere(p, x, heads):
    """Eq. 9. Returns t [D], the utterances [n, D] and t's weights [H, 1 + n]."""
    rows = np.concatenate([p["token"][None], x])
    out, weights = language_guided_block(p["block"], rows, rows, rows, np.ones((len(rows),) * 2, bool), heads)
    return out[0], out[1:], weights[:, 0]


def causal_atmosphere(p, x, heads):
    """Eq. 9 on every prefix. Returns [n, D] and [n, D]: t and the newest utterance of each."""
    prefixes = [atmosphere(p, x[: i + 1], heads) for i in range(len(x))]
    return np.stack([t for t, _, _ in prefixes]), np.stack([rows[-1] for _, rows, _ in prefixes])


def gaussian_head(p, x, parametrization="softplus_std"):
    mean, raw = np.split(linear(p["output"], np.maximum(linear(p["hidden"], x), 0)), 2, axis=-1)
    if parametrization == "softplus_std":
        return mean, np.log(1 + np.exp(raw)) + 1e-7
    clipped = np.clip(raw, -5, 5)
    return mean, np.exp(clipped) if parametrization == "log_std" else np.sqrt(np.exp(clipped))


def kl(p, q):
    """KL(p || q) of (mean, standard deviation) pairs, per dimension."""
    return np.log(q[1] / p[1]) + (p[1] ** 2 + (p[0] - q[0]) ** 2) / (2 * q[1] ** 2) - 0.5


def fusion_weight(p, q, weighting="sigmoid", reduction="sum"):
    """Eqs. 14-16, from both directions with their logarithms."""
    divergence = (kl(p, q) + kl(q, p)) / 2
    w = sigmoid(divergence.sum(-1) if reduction == "sum" else divergence.mean(-1))
    return {"sigmoid": w, "two_sigmoid_minus_one": 2 * w - 1, "one_minus": 1 - w, "ones": np.ones_like(w)}[weighting]


def rows_where(present, x):
    return np.where(present[:, None], x, 0)


def one_of(p, i):
    """Parameters of the i-th modality."""
    return jax.tree.map(lambda leaf: leaf[i], p)


def lfvd(p, model, features, available, speakers):
    """Eqs. 2-18 for one conversation, with the switches of `model` (an LFVD).

    features: modality -> [n, D_m]; available: modality -> [n]; speakers [n].
    """
    names = model.modalities
    dominant = model.dominant if model.dominant in names else next(m for m in ("text", "audio", "visual") if m in names)
    length = len(speakers)
    before = np.tri(length, dtype=bool) if model.causal else np.ones((length, length), bool)

    x = {}
    for i, m in enumerate(names):
        graph = p["graph"] if model.dag_shared else one_of(p["graph"], i)
        gru = {name.removeprefix(f"{m}_"): value for name, value in p["gru"].items() if name.startswith(m)}
        read = bigru(gru, rows_where(available[m], features[m]), model.bidirectional and not model.causal)
        x[m] = dag_encoder(graph, read, speakers, layers=model.dag_layers, window=model.omega, output=model.dag_output)
    out = {"encoded": x, "attention": {}}

    present = {m: rows_where(available[m], x[m]) for m in names}
    enriched = {}
    for i, m in enumerate(names):
        block = one_of(p["language_guided"], i)
        if model.qkv_sharing == "per_modality":
            block["query_projection"] = p["shared_query"]
        enriched[m], out["attention"][f"{m}_to_{dominant}"] = language_guided_block(
            block,
            present[dominant],
            present[m],
            present[m] if model.cross_residual == "source" else present[dominant],
            before & available[m][None],
            model.num_heads,
        )
        enriched[m] = rows_where(available[m], enriched[m])
    merged = present[dominant] + sum(enriched[m] for m in names)
    if model.causal:
        t, after = causal_atmosphere(p["atmosphere"], merged, model.num_heads)
    else:
        t, after, token_weights = atmosphere(p["atmosphere"], merged, model.num_heads)
        out["attention"]["atmosphere"] = token_weights[:, None]
        t = t[None]
    streams = {
        **x,
        dominant: {"encoder": x[dominant], "lfa": enriched[dominant], "fused": after}[model.language_stream],
    }
    if model.use_atmosphere:
        out["atmosphere"] = t
        streams = {m: stream + t for m, stream in streams.items()}
    x = out["features"] = {m: rows_where(available[m], stream) for m, stream in streams.items()}

    posteriors = {m: gaussian_head(one_of(p["posterior"], i), x[m], model.sigma_param) for i, m in enumerate(names)}
    out["posteriors"] = posteriors
    if model.reconstruct:
        out["reconstructions"] = {m: linear(p[f"decoder_{m}"], posteriors[m][0]) for m in names}
    if model.fusion_input != "x":
        x = {m: rows_where(available[m], posteriors[m][0]) for m in names}

    together = np.concatenate([x[m] for m in names], axis=1)
    out["weights"] = {}
    if model.fusion == "cat":
        fused = linear(p["concatenation"], together)
    elif model.fusion == "gate":
        fused = sum(sigmoid(linear(p[f"gate_{m}"], together)) * x[m] for m in names)
    else:
        for m in names:
            weights = out["weights"][m] = np.ones(length)
            if m != dominant and model.fusion == "cmvd":
                both = fusion_weight(posteriors[dominant], posteriors[m], model.weight_fn, model.weight_kl_reduction)
                weights[:] = np.where(available[dominant], both, 1)
            weights[~available[m]] = 0
        fused = sum(out["weights"][m][:, None] * x[m] for m in names)
    out["fused"] = fused
    out["logits"] = linear(p["classifier"], fused)
    return out


def lfvd_losses(conversations, loss, modalities, dominant):
    """Eqs. 10, 11, 13 and 19 over a batch, with the switches of `loss` (an LFVDLoss): term -> (weight, sum, count).

    conversations: list of {logits, features, posteriors, available, labels} and, where used, samples and
    reconstructions, as `lfvd` lays them out.
    """
    rows = [(c, i) for c in range(len(conversations)) for i in range(len(conversations[c]["labels"]))]

    def there(m, row):
        return conversations[row[0]]["available"][m][row[1]]

    def label(row):
        return conversations[row[0]]["labels"][row[1]]

    def vector(m, row):
        return conversations[row[0]]["features"][m][row[1]]

    def power(m, row, other_m, other):
        u, v = vector(m, row), vector(other_m, other)
        return np.exp(u @ v / np.linalg.norm(u) / np.linalg.norm(v) / loss.tau)

    labelled = [row for row in rows if label(row) >= 0]
    total = count = 0.0
    for c, i in labelled:
        weight = loss.class_weights[label((c, i))] if loss.class_weights else 1.0
        total -= weight * np.log(softmax(conversations[c]["logits"][i])[label((c, i))])
        count += weight
    terms = {"classification": (1.0, total, count)}

    total = 0.0
    for m, other_m in itertools.permutations(modalities, 2):
        both = [row for row in rows if there(m, row) and there(other_m, row)]
        for row in both:
            compared = [o for o in both if loss.contrast_scope == "batch" or o[0] == row[0]]
            others = [o for o in compared if o != row]
            if others:
                below = others if loss.self_denominator == "negatives" else compared
                total -= np.log(power(m, row, other_m, row) / sum(power(m, row, other_m, o) for o in below))
    if loss.gamma_self and len(modalities) > 1:
        terms["self"] = (loss.gamma_self, total, len(rows))

    total = 0.0
    for m in modalities:
        there_and_labelled = [row for row in labelled if there(m, row)]
        for row in there_and_labelled:
            positives = [o for o in there_and_labelled if label(o) == label(row) and o != row]
            below = [o for o in there_and_labelled if label(o) != label(row)]
            if loss.supcon_denominator == "negatives_plus_self":
                below.append(row)
            elif loss.supcon_denominator == "all_but_self":
                below += positives
            if positives and below:
                divisor = sum(power(m, row, m, o) for o in below)
                total -= np.mean([np.log(power(m, row, m, o) / divisor) for o in positives])
    if loss.gamma_full:
        terms["full"] = (loss.gamma_full, total, len(labelled))

    def posterior(m, row):
        mean, scale = conversations[row[0]]["posteriors"][m]
        return mean[row[1]], scale[row[1]]

    def divergence(m, row, other):
        q = posterior(m, row)
        if loss.kl_estimator == "analytic":
            return kl(q, other).sum()
        z = conversations[row[0]]["samples"][m][row[1]]
        return sum(
            (np.log(b[1]) + ((z - b[0]) / b[1]) ** 2 / 2 - np.log(a[1]) - ((z - a[0]) / a[1]) ** 2 / 2).sum()
            for a, b in [(q, other)]
        )

    total = 0.0
    for m in modalities:
        for row in rows:
            if there(m, row):
                mean, scale = posterior(m, row)
                total += divergence(m, row, (np.zeros_like(mean), np.ones_like(scale)))
                if m != dominant and there(dominant, row):
                    total += divergence(m, row, posterior(dominant, row))
    if loss.gamma_distillation:
        terms["distillation"] = (loss.gamma_distillation, total, len(rows))

    if loss.recon_weight:
        total = sum(
            ((conversations[row[0]]["reconstructions"][m][row[1]] - vector(m, row)) ** 2).mean()
            for m in modalities
            for row in rows
            if there(m, row)
        )
        terms["reconstruction"] = (loss.recon_weight, total, len(rows))
    return terms
