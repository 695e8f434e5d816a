"""The readings of LPGNet and LFVD that their papers leave open, each a factor with its values, the default first."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ml_collections import ConfigDict


class Value(NamedTuple):
    """A value of a factor.

    Attributes:
      label: how tables and folders call it.
      overrides: `section.field` -> text.
      against: label of the value of this factor that it is compared with; empty = the default.
    """

    label: str
    overrides: Mapping[str, str]
    against: str = ""


Factors = Mapping[str, tuple[Value, ...]]


def switch(field: str, *values: str) -> tuple[Value, ...]:
    """Returns the values of a factor that is one field."""
    return tuple(Value(value, {field: value}) for value in values)


def lpgnet(_: ConfigDict) -> Factors:
    """Returns LPGNet's: what step 4 compresses and how, local encoding, attention, width."""
    return {
        "global_compression": switch(
            "model.global_compression", "pooled", "per_position", "query_mean", "pooled_plus_context", "channel"
        ),
        "positional": switch("model.positional", "none", "sinusoidal"),
        "kernel": switch("model.conv_kernel", "3", "1", "5"),
        "width": switch("model.d", "256", "128", "512"),
        "heads": switch("model.heads", "1", "8"),
        "ffn_input": switch("model.ffn_input", "residual", "parallel"),
        "compress_norm": switch("model.compress_norm", "batch", "layer"),
    }


def lfvd(config: ConfigDict) -> Factors:
    """Returns LFVD's: what each part hands on, and how the Gaussians make weights."""
    # Means and samples are as wide as what they replace; width alone must not be taken for their effect.
    wide, as_wide = {"model.d_z": str(config.model.d_x)}, "x, d_z = d_x"
    return {
        "language_stream": switch("model.language_stream", "encoder", "lfa", "fused"),
        "fusion_input": (
            Value("x", {"model.fusion_input": "x"}),
            Value(as_wide, {"model.fusion_input": "x", **wide}),
            Value("mu", {"model.fusion_input": "mu", **wide}, against=as_wide),
            Value("z", {"model.fusion_input": "z", **wide}, against=as_wide),
        ),
        "weighting": switch("model.weight_fn", "sigmoid", "two_sigmoid_minus_one", "one_minus", "ones"),
        "cross_residual": switch("model.cross_residual", "source", "query"),
        "d_z": switch("model.d_z", "64", "2", "16"),
        "weight_kl_reduction": switch("model.weight_kl_reduction", "sum", "mean"),
    }


FACTORS: Mapping[str, Callable[[ConfigDict], Factors]] = {"lpgnet": lpgnet, "lfvd": lfvd}
