"""MMGCN: a BiLSTM of the text, linear maps of the others, one kernel `[2g, g]` for each layer of the graph."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from golden import Adapter, Golden, linear, stacked_recurrent

from jmer.modalities import MODALITIES

PUBLISHED_ORDER = ("audio", "visual", "text")


def modalities(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the modalities that have an encoder."""
    return tuple(m for m in MODALITIES if any(name.startswith(f"encoder_{m}") for name in params))


def encoder(modality: str) -> str:
    """Returns the published name of a modality's linear map."""
    return "encoder_text_linear/" if modality == "text" else f"encoder_{modality}/"


def graph_sections(golden: Golden) -> dict[str, Any]:
    """Returns the fields of the section `model` that MMGCN and MM-DFN share."""
    width, d_graph = golden.params["graph_input/kernel"].shape
    return {
        "modalities": modalities(golden.params),
        "d_rnn": width // 2,
        "d_graph": d_graph,
        "graph_layers": golden.count("graph_layer"),
        "alpha": golden.setting("alpha"),
        "lamda": golden.setting("lamda"),
    }


def fusion(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of the graph and the classifier, whose inputs are in another order of modalities."""
    count = len([name for name in params if name.startswith("graph_layer")])
    layers = [params[f"graph_layer{i}/kernel"] for i in range(1, count + 1)]
    present = modalities(params)
    published = [m for m in PUBLISHED_ORDER if m in present]
    blocks = jnp.split(params["classifier/kernel"], len(present))
    kernel = jnp.concatenate([blocks[published.index(m)] for m in present])
    return {
        "graph_input": linear(params, "graph_input/"),
        "graph": {"kernels": jnp.stack(layers)},
        "classifier": {"kernel": kernel, "bias": params["classifier/bias"]},
    }


def _sections(golden: Golden) -> tuple[dict[str, Any], dict[str, Any]]:
    embedding = golden.params.get("speaker_embedding")
    speakers = {"speaker_on": "none"} if embedding is None else {"speakers": len(embedding)}
    loss = {"focal_gamma": golden.setting("focal_gamma"), "class_weight_values": tuple(golden["class_weights"])}
    return graph_sections(golden) | speakers, loss


def _parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {f"input_{m}": linear(params, encoder(m)) for m in modalities(params)}
    if "text" in modalities(params):
        tree["context_text"] = stacked_recurrent(params, "encoder_text_lstm")
    if "speaker_embedding" in params:
        tree["speaker_embedding"] = {"embedding": params["speaker_embedding"]}
    return tree | {"fusion": fusion(params)}


ADAPTER = Adapter(
    model="mmgcn",
    recognises=lambda golden: "graph_layer1/kernel" in golden.params and "layer_lstm/kernel" not in golden.params,
    sections=_sections,
    parameters=_parameters,
    losses={"loss_published_focal": {"criterion": "published_focal", "class_weight_values": ()}},
)
