"""The files of DialogueCRN."""

from golden import Adapter, linear, with_prefix

BANKS = ("situation", "speaker")


def sections(golden):
    """Depth and steps are settings of the file; its features stand side by side."""
    model = {
        "d_h": golden.params["query_kernel"].shape[0] // 2,
        "num_layers": golden.setting("layers"),
        "situation_steps": golden.setting("steps_situation"),
        "speaker_steps": golden.setting("steps_speaker"),
    }
    weights = golden.arrays.get("class_weights")
    loss = {"focal_gamma": golden.setting("focus")}
    return model, loss if weights is None else loss | {"class_weight_values": tuple(weights.tolist())}


def parameters(params):
    """Both recurrent networks, and the reasoning of the banks that have one."""
    tree = {name: linear(params, f"{name}_") for name in ("query", "classifier")}
    for bank in BANKS:
        of_bank = with_prefix(params, f"{bank}_")
        tree[bank] = {f"layer_{name}": x for name, x in of_bank.items() if name[0].isdigit()}
        reason = {f"lstm_{name}": x for name, x in with_prefix(of_bank, "reason_").items()}
        if reason:
            tree[f"{bank}_reasoning"] = reason
    return tree


ADAPTER = Adapter(
    model="dialoguecrn",
    recognises=lambda golden: "query_kernel" in golden.params and "steps_situation" in golden.arrays,
    sections=sections,
    parameters=parameters,
)
