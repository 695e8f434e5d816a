"""How far the members of an ensemble agree on each utterance."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Spread:
    r"""How the $S \geq 2$ members of an ensemble differ on `k` examples of `n_i` utterances.

    With the probability $p^{(s)}_{ij}$ that member $s$ gives emotion $j$ of utterance $i$, and its mean $\bar p_{ij}$:

    .. math::
        \mathrm{sd}_{ij} = \sqrt{\frac{1}{S - 1} \sum_{s=1}^{S} \bigl(p^{(s)}_{ij} - \bar p_{ij}\bigr)^2}, \qquad
        \mathrm{agreement}_i = \frac{1}{S} \, \bigl|\{s : \arg\max_j p^{(s)}_{ij} = \arg\max_j \bar p_{ij}\}\bigr|

    Attributes:
      deviations: `k` arrays float32 `[n_i, C]`, sd, the sample standard deviation of each probability.
      agreement: `k` arrays float32 `[n_i]`, the share of the members that predict what the ensemble predicts.
    """

    deviations: Sequence[np.ndarray]
    agreement: Sequence[np.ndarray]


def member_spread(members: Sequence[Sequence[np.ndarray]], means: Sequence[np.ndarray]) -> Spread | None:
    """Returns the spread of an ensemble's members; None for a single one, which has none.

    Args:
      members: for each member, `k` arrays of probabilities `[n_i, C]`.
      means: `k` arrays `[n_i, C]`, see `jmer.evaluation.predictions.mean_probabilities`.
    """
    if len(members) < 2:
        return None
    stacked = [np.stack(arrays).astype(np.float64) for arrays in zip(*members, strict=True)]
    return Spread(
        [values.std(axis=0, ddof=1).astype(np.float32) for values in stacked],
        [
            (values.argmax(-1) == mean.argmax(-1)).mean(axis=0, dtype=np.float32)
            for values, mean in zip(stacked, means, strict=True)
        ],
    )
