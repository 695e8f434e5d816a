"""MM-DFN: MMGCN's parameters with GRUs, that of the text and that of the parties, and an LSTM along the layers."""

from collections.abc import Mapping
from typing import Any

from golden import Adapter, Golden, linear, recurrent, stacked_recurrent

from golden_models.mmgcn import PUBLISHED_ORDER, encoder, fusion, graph_sections, modalities
from jmer.modalities import MODALITIES


def _sections(golden: Golden) -> tuple[dict[str, Any], dict[str, Any]]:
    published = dict(zip(PUBLISHED_ORDER, golden["party_weights"].tolist(), strict=True))
    model = graph_sections(golden) | {"party_weights": tuple(published[m] for m in MODALITIES)}
    loss = {"focal_gamma": golden.setting("focal_gamma"), "class_weight_values": tuple(golden["class_weights"])}
    return model, loss


def _parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {f"input_{m}": linear(params, encoder(m)) for m in modalities(params)}
    if "text" in modalities(params):
        tree["context_text"] = stacked_recurrent(params, "encoder_text_gru")
    tree |= {"party": stacked_recurrent(params, "party_gru"), "fusion": fusion(params)}
    tree["fusion"]["graph"] |= recurrent(params, "layer_lstm", "lstm")
    return tree


ADAPTER = Adapter(
    model="mmdfn",
    recognises=lambda golden: "layer_lstm/kernel" in golden.params,
    sections=_sections,
    parameters=_parameters,
    losses={"loss_unweighted": {"class_weight_values": ()}},
)
