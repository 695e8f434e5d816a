"""The concat MLP in PyTorch, on all positions of a padded batch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_linear
from jmer.batch import Batch


class ConcatMLP(nn.Module):
    """The network of `jmer.models.concat_mlp.ConcatMLP`.

    Args:
      widths: modality -> width of its features.
      num_classes, d_h, d_f, dropout_rate: see `jmer.models.concat_mlp.ConcatMLP`.
    """

    def __init__(
        self, widths: Mapping[str, int], num_classes: int, *, d_h: int = 256, d_f: int = 256, dropout_rate: float = 0.3
    ):
        super().__init__()
        self.inputs = nn.ModuleDict({m: nn.Linear(width, d_h) for m, width in widths.items()})
        self.hidden = nn.Linear(len(widths) * d_h, d_f)
        self.classifier = nn.Linear(d_f, num_classes)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        encoded = [self.dropout(F.relu(layer(inputs(batch, m)))) for m, layer in self.inputs.items()]
        hidden = self.dropout(F.relu(self.hidden(torch.cat(encoded, dim=2))))
        return ClassifierOutput(self.classifier(hidden))


def load_parameters(module: ConcatMLP, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.concat_mlp.ConcatMLP`."""
    for modality, layer in module.inputs.items():
        load_linear(layer, params[f"input_{modality}"])
    load_linear(module.hidden, params["hidden"])
    load_linear(module.classifier, params["classifier"])
