"""All analyses by name, in the order of the report."""

from collections.abc import Mapping

from experiments.analysis import calibration, fusion_weights, missing, noise, posteriors, space, speed
from experiments.analysis.analysis import Analysis

ANALYSES: Mapping[str, Analysis] = {
    "missing": missing.ANALYSIS,
    "noise": noise.ANALYSIS,
    "calibration": calibration.ANALYSIS,
    "fusion_weights": fusion_weights.ANALYSIS,
    "posteriors": posteriors.ANALYSIS,
    "space": space.ANALYSIS,
    "speed": speed.ANALYSIS,
}
