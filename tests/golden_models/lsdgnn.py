"""The files of LSDGNN."""

import jax.numpy as jnp
from golden import Adapter, linear, with_prefix

LINEAR = ("input", "hidden_0", "hidden_1", "classifier")
EXCHANGE = {"first_kernel": "biaffine_short_kernel", "second_kernel": "biaffine_long_kernel"}


def sections(golden):
    """The windows and the depth are settings of the file."""
    model = {
        "d_h": golden.params["input_bias"].size,
        "dag_layers": golden.setting("layers"),
        "omega_short": golden.setting("window_short"),
        "omega_long": golden.setting("window_long"),
    }
    return model, {"beta": golden.setting("beta")}


def parameters(params):
    """Both branches' layers side by side."""
    tree = {name: linear(params, f"{name}_") for name in LINEAR}
    tree["exchange"] = {ours: params[theirs] for ours, theirs in EXCHANGE.items()}
    tree["branches"] = {}
    for layer in range(sum(name.startswith("short_") and name.endswith("_score_bias") for name in params)):
        short, long = (with_prefix(params, f"{branch}_{layer}_") for branch in ("short", "long"))
        tree["branches"][f"layer_{layer}"] = {name: _side_by_side(name, short[name], long[name]) for name in short}
    return tree


def _side_by_side(name, short, long):
    both = jnp.stack([short, long])
    return both[..., None] if name in ("score_query_kernel", "score_key_kernel") else both


ADAPTER = Adapter(
    model="lsdgnn",
    recognises=lambda golden: "biaffine_short_kernel" in golden.params,
    sections=sections,
    parameters=parameters,
    outputs=lambda output, terms, batch: {
        "cross_entropy": terms["classification"],
        "difference": terms["difference"],
    },
)
