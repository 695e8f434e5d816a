"""Monitors of LFVD's variational heads: collapsed Gaussians, and saturated weights computed from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from experiments.analysis.analysis import Analysis
from experiments.analysis.fusion_weights import END, limits
from experiments.analysis.subjects import Subject, available
from experiments.plots import bars, make_figure, tidy, with_spread
from experiments.tables import NOTHING, markdown, number
from jmer.evaluation.plots import STYLES, save
from jmer.layers.gaussian import Gaussian, gaussian_kl, standard_normal_like, symmetric_kl

ACTIVE = 0.01
"""Active units have a mean whose variance over the utterances exceeds this (Burda et al. 2016, section 5.1)."""
SATURATED = 0.95
"""A modality's weights are saturated if more than this share of them is."""
COLLAPSED_VERDICT, SATURATED_VERDICT, FINE = "collapsed", "saturated", "neither"


def posteriors_of(output: Any) -> Mapping[str, Gaussian]:
    """Returns the Gaussians in a model's output, empty if it has none."""
    return getattr(output, "posteriors", {})


def applies(subject: Subject) -> str:
    """Requires Gaussians."""
    return "" if subject.output_shapes(posteriors_of) else "this model has no variational heads"


def measure(subjects: Sequence[Subject], split: str) -> pd.DataFrame:
    """Returns a row per seed and modality, over all utterances that have it, labelled or not.

    Columns `seed`, `modality`; `kl`, the mean divergence from N(0, I) per dimension in nats; `units` and
    `active_units`; `scale_mean` and `scale_sd`, over utterances and dimensions. For modalities other than the
    dominant one, over the utterances that have both: `symmetric_kl`, the mean divergence from the dominant one, summed
    over dimensions, in nats; `weight_mean`, `weight_sd`; `saturated`, the share of weights within `END` of their limit
    at infinite divergence. And `verdict`: collapsed, saturated, both or neither.
    """
    rows = []
    for subject in subjects:
        examples = subject.examples(split)
        present = {m: available(examples, m) for m in subject.modalities}
        posteriors = jax.tree.map(lambda *parts: np.concatenate(parts), *subject.outputs(examples, posteriors_of))
        weights = {m: np.concatenate(w) for m, w in subject.predictor.predict_normalized(examples).weights.items()}
        for m in subject.modalities:
            row = {"seed": subject.seed, "modality": m} | _statistics(_rows(posteriors[m], present[m]))
            if m != subject.dominant:
                both = present[m] & present[subject.dominant]
                pair = [_rows(posteriors[name], both) for name in (subject.dominant, m)]
                row["symmetric_kl"] = float(np.mean(symmetric_kl(*pair)))
                row |= _weight_statistics(weights[m][both], limits(subject)[1]) if m in weights else {}
            rows.append(row | {"verdict": _verdict(row)})
    return pd.DataFrame(rows)


def _rows(posterior: Gaussian, where: np.ndarray) -> Gaussian:
    return Gaussian(posterior.mean[where], posterior.scale[where])


def _statistics(posterior: Gaussian) -> dict[str, float]:
    units = posterior.mean.shape[-1]
    return {
        "kl": float(np.mean(gaussian_kl(posterior, standard_normal_like(posterior)))) / units,
        "units": units,
        "active_units": int((posterior.mean.var(0, dtype=np.float64) > ACTIVE).sum()),
        "scale_mean": posterior.scale.mean(dtype=np.float64),
        "scale_sd": posterior.scale.std(dtype=np.float64),
    }


def _weight_statistics(weights: np.ndarray, limit: float) -> dict[str, float]:
    weights = weights.astype(np.float64)
    return {
        "weight_mean": weights.mean(),
        "weight_sd": weights.std(),
        "saturated": np.mean(np.abs(weights - limit) < END),
    }


def _verdict(row: Mapping[str, float]) -> str:
    found = [COLLAPSED_VERDICT] if row["active_units"] == 0 else []
    found += [SATURATED_VERDICT] if row.get("saturated", 0) > SATURATED else []
    return " and ".join(found) or FINE


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws four monitors, a bar per modality."""
    modalities = list(dict.fromkeys(frame["modality"]))
    panels = {
        "kl": "KL to N(0, I), nats per dimension",
        "active": "active units (%)",
        "scale_mean": "mean standard deviation",
        "weight_mean": "mean weight",
    }
    frame = frame.assign(active=100 * frame["active_units"] / frame["units"])
    figure = make_figure(12, 3.6, with_spread(title, frame))
    for axes, (name, label), (colour, _) in zip(figure.subplots(1, 4), panels.items(), STYLES, strict=False):
        shown = frame.reindex(columns=[*frame.columns.union([name])])
        values = {m: shown.loc[shown["modality"] == m, name].to_numpy() for m in modalities}
        bars(axes, {m: v for m, v in values.items() if not np.isnan(v).any()}, colour)
        tidy(axes, ylabel=label)
    save(figure, path)


def describe(frame: pd.DataFrame) -> list[str]:
    """Tabulates the monitors and a verdict for each modality."""
    columns = {
        "KL to N(0, I) per dimension": "kl",
        "active units": "active_units",
        "standard deviation": "scale_mean",
        "its spread": "scale_sd",
        "symmetric KL to the dominant": "symmetric_kl",
        "weight": "weight_mean",
        "its sd": "weight_sd",
        "saturated": "saturated",
    }
    rows = []
    for modality, part in frame.groupby("modality", sort=False):
        cells = {title: number(part[name]) if name in part else NOTHING for title, name in columns.items()}
        cells["active units"] = number(part["active_units"], decimals=1)
        verdicts = part["verdict"].value_counts(sort=False)
        verdict = ", ".join(f"{word} ({count} of {len(part)})" for word, count in verdicts.items())
        rows.append({"modality": modality, **cells, "verdict (seeds)": verdict})
    return [
        markdown(rows),
        f"KL in nats; {frame['units'].iloc[0]} units per modality; active units have a mean whose variance over the "
        f"utterances is above {ACTIVE:g}. Collapsed: no unit is active. Saturated: more than {100 * SATURATED:g} % of "
        f"the weights are within {END:g} of their limit at infinite divergence.",
    ]


ANALYSIS = Analysis("Variational heads", measure, draw, describe, applies)
