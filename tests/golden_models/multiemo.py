"""MultiEMO: files of the layout with underscores that have cross-attention of the text."""

import jax.numpy as jnp
from golden import Adapter, linear, with_prefix

from jmer.modalities import MODALITIES

OF_ATTENTION = {"query": "query", "key": "key", "value": "value", "out": "output"}


def modalities(params):
    return [m for m in MODALITIES if f"{m}_kernel" in params]


def sections(golden):
    params, counts = golden.params, golden["class_counts"]
    model = {
        "modalities": tuple(modalities(params)),
        "d": params["fusion_kernel"].shape[1],
        "bidirectional": any("_backward_" in name for name in params),
        "text_context": "text_forward_global_input_kernel" in params,
        "num_layers": golden.setting("layers"),
        "num_heads": golden.setting("heads"),
        "d_ff": params["text_cross_0_ff_in_kernel"].shape[1],
        "d_h": params["hidden_kernel"].shape[1],
    }
    lambdas = zip(("correlation", "contrast", "classification"), golden["loss_weights"].tolist(), strict=True)
    loss = {
        **{f"lambda_{name}": weight for name, weight in lambdas},
        "alpha": golden.setting("sample_weight"),
        "focal_gamma": golden.setting("focus"),
        "tau": golden.setting("temperature"),
        "class_weight_values": tuple((counts.sum() / counts).tolist()),
    }
    return model, loss


def cross_layer(params, modality, layer):
    """One modality's parameters of a layer; attention is numbered from 1 in the files."""
    prefix = f"{modality}_cross_{layer}_"
    attentions = {
        f"attention_{i}": {
            "attention": {o: linear(params, f"{prefix}{i + 1}_{theirs}_") for theirs, o in OF_ATTENTION.items()},
            "norm": with_prefix(params, f"{prefix}norm_{i + 1}_"),
        }
        for i in range(2)
    }
    parts = {"inner": linear(params, f"{prefix}ff_in_"), "outer": linear(params, f"{prefix}ff_out_")}
    return {**attentions, "feed_forward": parts | {"norm": with_prefix(params, f"{prefix}norm_3_")}}


def stacked(trees):
    """The parameters of several layers in one array each."""
    first = trees[0]
    if isinstance(first, dict):
        return {name: stacked([tree[name] for tree in trees]) for name in first}
    return jnp.stack(trees)


def parameters(params):
    names, recurrences = modalities(params), {}
    for name, x in params.items():
        if any(name.startswith((f"{m}_forward_", f"{m}_backward_")) for m in names):
            recurrences[name] = x.reshape(-1, 1) if name.endswith("attention_kernel") else x
    layers = {name.split("_")[2] for name in params if name.startswith("text_cross_")}
    return {
        **{f"input_{m}": linear(params, f"{m}_") for m in names},
        "recurrences": recurrences,
        **{f"context_{m}": linear(params, f"{m}_context_") for m in names if f"{m}_context_kernel" in params},
        **{f"cross_{layer}": stacked([cross_layer(params, m, layer) for m in names]) for layer in layers},
        **{name: linear(params, f"{name}_") for name in ("fusion", "hidden", "classifier")},
    }


def outputs(output, terms, batch):
    losses = jnp.stack([terms[name] for name in ("correlation", "contrast", "classification")])
    return {"fused": output.fused, "losses": losses}


ADAPTER = Adapter(
    model="multiemo",
    recognises=lambda golden: "text_cross_0_1_query_kernel" in golden.params,
    sections=sections,
    parameters=parameters,
    outputs=outputs,
)
