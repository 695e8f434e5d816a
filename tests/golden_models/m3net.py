"""M3NET: files of the other layout with nodes and layers of gates; the projection of text may be missing."""

from golden import Adapter, linear, with_prefix

from jmer.modalities import MODALITIES


def sections(golden):
    model = {
        "d_g": golden.params["node_kernel"].shape[0],
        "d_q": golden.params["node_kernel"].shape[1],
        "rnn_layers": golden.count("gru_"),
        "hyperedge_layers": golden.setting("hyperedge_layers"),
        "gate_layers": golden.setting("gate_layers"),
        "speakers": golden.setting("n_speakers"),
    }
    return model, {"class_weight_values": tuple(golden["class_weights"].tolist())}


def parameters(params):
    layers = {f"hyperedge_layer_{i}": {"bias": x} for i, x in _layers(params, "hyperedge_layer_", "_bias").items()}
    for i, bias in _layers(params, "gate_layer_", "_bias").items():
        kernels = {
            f"{end}_kernel": params[f"gate_layer_{i}_{end}_kernel"].reshape(-1, 1) for end in ("target", "source")
        }
        layers[f"gate_layer_{i}"] = {"bias": bias, **kernels}
    return {
        "text_norm": {name: params[f"text_norm_{name}"] for name in ("scale", "bias")},
        **{f"input_{m}": linear(params, f"{m}_") for m in MODALITIES if f"{m}_kernel" in params},
        "gru": {f"layer_{name}": x for name, x in with_prefix(params, "gru_").items()},
        "speakers": {"embedding": params["speaker_embedding"]},
        "node": linear(params, "node_"),
        **layers,
        "classifier": linear(params, "classifier_"),
    }


def _layers(params, prefix, suffix):
    """Returns number of a layer -> parameter, for names of a number between a prefix and a suffix."""
    return {name.removesuffix(suffix): x for name, x in with_prefix(params, prefix).items() if name.endswith(suffix)}


ADAPTER = Adapter(
    model="m3net",
    recognises=lambda golden: "gate_layer_0_target_kernel" in golden.params,
    sections=sections,
    parameters=parameters,
    statistics=lambda params: {"text_norm": {name: params[f"text_norm_{name}"] for name in ("mean", "var")}},
    losses={"published_meld_loss": {"criterion": "published_focal", "focal_gamma": 2.5, "class_weight_values": ()}},
)
