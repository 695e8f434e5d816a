"""DialogueRNN: files of the layout with slashes that have a GRU for parties' states in either direction."""

from golden import Adapter, linear, recurrent

DIRECTIONS = ("forward", "backward")


def sections(golden):
    model = {
        "d_g": golden.params["forward/global_gru/recurrent_kernel"].shape[0],
        "d_p": golden.params["forward/party_gru/recurrent_kernel"].shape[0],
        "d_e": golden.params["forward/emotion_gru/recurrent_kernel"].shape[0],
        "d_h": golden.params["hidden/kernel"].shape[1] // 2,
        "context_attention": golden.setting("context_attention"),
        "listener": golden.setting("listener"),
        "speakers": int(golden["speakers"].max()) + 1,
        "emotion_attention": "emotion_attention/kernel" in golden.params,
    }
    return model, {"class_weight_values": tuple(golden["class_weights"].tolist())}


def parameters(params):
    recurrence = {}
    for direction in DIRECTIONS:
        for part in ("global", "party", "listener", "emotion"):
            if f"{direction}/{part}_gru/kernel" in params:
                recurrence |= recurrent(params, f"{direction}/{part}_gru", f"{direction}_{part}")
        for name, x in params.items():
            if name.startswith(f"{direction}/context_attention/"):
                recurrence[f"{direction}_attention_{name.rsplit('/', 1)[1]}"] = x
    maps = {name: linear(params, f"{name}/") for name in ("emotion_attention", "hidden", "classifier")}
    return {"recurrence": recurrence} | {name: of for name, of in maps.items() if of}


ADAPTER = Adapter(
    model="dialoguernn",
    recognises=lambda golden: "forward/party_gru/kernel" in golden.params,
    sections=sections,
    parameters=parameters,
    losses={"loss_unweighted": {"class_weight_values": ()}},
)
