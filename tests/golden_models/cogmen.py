"""COGMEN: its authors' code."""

from golden import Adapter, linear, with_prefix


def sections(golden):
    params = golden.params
    return {
        "encoder_layers": len(encoder_layers(params)),
        "num_heads": golden.setting("encoder_heads"),
        "d_ff": params["encoder_0_ff_in_kernel"].shape[1],
        "d_h": params["relation_bias"].shape[0],
        "window_past": golden.setting("hears_back"),
        "window_future": golden.setting("hears_ahead"),
        "speakers": golden.setting("n_speakers"),
        "graph_heads": golden.setting("graph_heads"),
    }, {}


def encoder_layers(params):
    """The numbers of the encoder's layers; what follows them is named `encoder_out`."""
    return sorted({name.split("_")[1] for name in params if name.startswith("encoder_")} - {"out"})


def encoder_layer(params):
    def norm(name):
        return {part: params[f"{name}_{part}"] for part in ("scale", "bias")}

    attention = {name: linear(params, f"{name}_") for name in ("query", "key", "value")}
    return {
        "self_attention": {
            "attention": attention | {"output": linear(params, "attention_out_")},
            "norm": norm("attention_norm"),
        },
        "feed_forward": {
            "inner": linear(params, "ff_in_"),
            "outer": linear(params, "ff_out_"),
            "norm": norm("ff_norm"),
        },
    }


def parameters(params):
    tree = {f"encoder_{i}": encoder_layer(with_prefix(params, f"encoder_{i}_")) for i in encoder_layers(params)}
    return tree | {
        "encoder_out": linear(params, "encoder_out_"),
        "relational": {
            "kernels": params["relation_kernels"],
            "root": params["relation_root_kernel"],
            "bias": params["relation_bias"],
        },
        "graph_attention": {name: linear(params, f"graph_{name}_") for name in ("query", "key", "value")},
        "graph_skip": linear(params, "graph_skip_"),
        "graph_norm": {part: params[f"graph_norm_{part}"] for part in ("scale", "bias")},
        "hidden": linear(params, "hidden_"),
        "classifier": linear(params, "classifier_"),
    }


ADAPTER = Adapter(
    model="cogmen",
    recognises=lambda golden: "relation_kernels" in golden.params,
    sections=sections,
    parameters=parameters,
    statistics=lambda params: {"graph_norm": {part: params[f"graph_norm_{part}"] for part in ("mean", "var")}},
)
