"""What plain networks share that predict emotions and nothing else."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jmer.batch import UNLABELLED, Batch


def inputs(batch: Batch, modality: str) -> Tensor:
    """Returns a modality's features `[B, T, D]`, zero where an utterance lacks it."""
    return batch.features[modality].masked_fill(~batch.available[modality].unsqueeze(2), 0)


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Sequence[float] = ()) -> Tensor:
    """Returns the weighted mean over labelled utterances, of `logits` `[..., C]` and `labels` int32 `[...]`."""
    weights = torch.tensor(class_weights, dtype=logits.dtype, device=logits.device) if class_weights else None
    return F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1).long(), weight=weights, ignore_index=UNLABELLED
    )


@dataclasses.dataclass
class ClassifierOutput:
    """The output of a network: `logits` `[B, T, C]`."""

    logits: Tensor


@dataclasses.dataclass(frozen=True)
class CrossEntropyLoss:
    """The cross-entropy, the whole loss.

    Attributes:
      class_weights: weight of each emotion, `C` numbers; empty = all 1.
    """

    class_weights: Sequence[float] = ()

    def __call__(self, output: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total, and its only term by name."""
        classification = cross_entropy(output.logits, batch.labels, self.class_weights)
        return classification, {"classification": classification}


@dataclasses.dataclass(frozen=True)
class FocalMeanLoss:
    """The focal loss of DialogueCRN and MM-DFN, the whole loss: a plain mean of weighted terms.

    Attributes:
      focal_gamma: γ of the factor, a constant to the gradient.
      class_weights: weight of each emotion, `C` numbers; empty = all 1.
    """

    focal_gamma: float = 0.0
    class_weights: Sequence[float] = ()

    def __call__(self, output: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total, and its only term by name."""
        labelled = batch.labels != UNLABELLED
        logits, labels = output.logits[labelled], batch.labels[labelled].long()
        values = F.cross_entropy(logits, labels, reduction="none")
        factor = (1 - torch.exp(-values)).detach() ** self.focal_gamma
        if self.class_weights:
            factor = factor * torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)[labels]
        classification = (factor * values).sum() / max(len(labels), 1)
        return classification, {"classification": classification}
