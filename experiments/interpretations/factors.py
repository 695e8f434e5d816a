"""The interpretations of LPGNet and LFVD: factors that the papers leave open, and their values, the default first."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ml_collections import ConfigDict


class Value(NamedTuple):
    """A value of a factor.

    Attributes:
      label: its name in tables and folders.
      overrides: `section.field` -> text.
      against: label of the value of the same factor that it is compared with; empty = the default.
    """

    label: str
    overrides: Mapping[str, str]
    against: str = ""


Factors = Mapping[str, tuple[Value, ...]]


def field_values(field: str, *values: str) -> tuple[Value, ...]:
    """Returns the values of a factor that is a single field."""
    return tuple(Value(value, {field: value}) for value in values)


def lpgnet(_: ConfigDict) -> Factors:
    """Returns the factors of LPGNet: compression of the global context, local encoding, attention, width."""
    return {
        "global_compression": field_values(
            "model.global_compression", "pooled", "per_position", "query_mean", "pooled_plus_context", "channel"
        ),
        "positional": field_values("model.positional", "none", "sinusoidal"),
        "kernel": field_values("model.kernel_size", "3", "1", "5"),
        "width": field_values("model.d", "256", "128", "512"),
        "heads": field_values("model.num_heads", "1", "8"),
        "ffn_input": field_values("model.ffn_input", "residual", "parallel"),
        "compress_norm": field_values("model.compress_norm", "batch", "layer"),
    }


def lfvd(config: ConfigDict) -> Factors:
    """Returns the factors of LFVD: outputs of its parts, and the computation of weights from the Gaussians."""
    # Means and samples replace features, so both are compared at the same width.
    wide, as_wide = {"model.d_z": str(config.model.d_x)}, "x, d_z = d_x"
    return {
        "language_stream": field_values("model.language_stream", "encoder", "lfa", "fused"),
        "fusion_input": (
            Value("x", {"model.fusion_input": "x"}),
            Value(as_wide, {"model.fusion_input": "x", **wide}),
            Value("mu", {"model.fusion_input": "mu", **wide}, against=as_wide),
            Value("z", {"model.fusion_input": "z", **wide}, against=as_wide),
        ),
        "weighting": field_values("model.weight_fn", "sigmoid", "two_sigmoid_minus_one", "one_minus", "ones"),
        "cross_residual": field_values("model.cross_residual", "source", "query"),
        "d_z": field_values("model.d_z", "64", "2", "16"),
        "weight_kl_reduction": field_values("model.weight_kl_reduction", "sum", "mean"),
    }


FACTORS: Mapping[str, Callable[[ConfigDict], Factors]] = {"lpgnet": lpgnet, "lfvd": lfvd}
"""Model -> function from its default configuration to its factors."""
