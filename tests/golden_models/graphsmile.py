"""GraphSmile: files of the other layout with pairs of modalities."""

import jax.numpy as jnp
from golden import Adapter, linear, with_prefix

from jmer.models.graphsmile import PAIRS
from jmer.models.sentiments import SENTIMENTS


def sections(golden):
    model = {
        "d_h": golden.params["fusion_kernel"].shape[0],
        "window_past": golden.setting("window_past"),
        "window_future": golden.setting("window_future"),
        "pair_layers": tuple(golden["layers"].tolist()),
        "shift_window": golden.setting("shift_window"),
    }
    weights = zip(("emotion", "sentiment", "shift"), golden["loss_weights"].tolist(), strict=True)
    sentiments = tuple(SENTIMENTS[i] for i in golden["sentiment_of_emotion"])
    return model, {f"lambda_{name}": weight for name, weight in weights} | {"emotion_sentiments": sentiments}


def parameters(params):
    tree = {
        "text_norm": {name: params[f"text_norm_{name}"] for name in ("scale", "bias")},
        **{f"input_{m}": linear(params, f"{m}_") for m in ("text", "audio", "visual")},
        **{name: linear(params, f"{name}_") for name in ("fusion", "classifier", "sentiment")},
        **{f"shift_{name}": params[f"shift_{name}"] for name in ("kernel", "bias")},
    }
    for pair in map("_".join, PAIRS):
        tree[pair] = {f"layer_{n.replace('_out_', '_output_')}": x for n, x in with_prefix(params, f"{pair}_").items()}
    return tree


def outputs(output, terms, batch):
    losses = jnp.stack([terms[name] for name in ("emotion", "sentiment", "shift")])
    return {"sentiment_logits": output.sentiment_logits, "losses": losses}


ADAPTER = Adapter(
    model="graphsmile",
    recognises=lambda golden: "text_visual_0_graph_kernel" in golden.params,
    sections=sections,
    parameters=parameters,
    statistics=lambda params: {"text_norm": {name: params[f"text_norm_{name}"] for name in ("mean", "var")}},
    outputs=outputs,
)
