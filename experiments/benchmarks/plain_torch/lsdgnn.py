"""LSDGNN in PyTorch: one branch after the other, one utterance at a time, as in its authors' code."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import cross_entropy, inputs
from experiments.benchmarks.plain_torch.convert import load_linear, one_of, set_parameter
from experiments.benchmarks.plain_torch.dagerc import GraphLayer, load_layer, speaker_graph
from jmer.batch import Batch
from jmer.modalities import MODALITIES


@dataclasses.dataclass
class LSDGNNOutput:
    """Logits `[B, T, C]`; states of both branches' layers `[B, T, H]`, zero where padded."""

    logits: Tensor
    short: Sequence[Tensor]
    long: Sequence[Tensor]


class LSDGNN(nn.Module):
    """The network of `jmer.models.lsdgnn.LSDGNN`.

    Args:
      widths: modality -> width of its features, of those that are read.
      num_classes, d_h, dag_layers, omega_short, omega_long, dropout_rate: see `jmer.models.lsdgnn.LSDGNN`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_h: int = 300,
        dag_layers: int = 4,
        omega_short: int = 1,
        omega_long: int = 5,
        dropout_rate: float = 0.4,
    ):
        super().__init__()
        self.modalities = [m for m in MODALITIES if m in widths]
        self.windows = omega_short, omega_long
        width = sum(widths.values())
        self.input = nn.Linear(width, d_h)
        self.short = nn.ModuleList(GraphLayer(d_h) for _ in range(dag_layers))
        self.long = nn.ModuleList(GraphLayer(d_h) for _ in range(dag_layers))
        self.affine_short, self.affine_long = (nn.Parameter(torch.empty(d_h, d_h)) for _ in range(2))
        for affine in (self.affine_short, self.affine_long):
            nn.init.xavier_uniform_(affine, gain=2**0.5)
        self.hidden = nn.ModuleList([nn.Linear(2 * d_h * (dag_layers + 1) + width, d_h), nn.Linear(d_h, d_h)])
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(d_h, num_classes)

    def forward(self, batch: Batch) -> LSDGNNOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        x = torch.cat([inputs(batch, m) for m in self.modalities], dim=2)
        below = F.relu(self.input(x))
        branches = []
        for layers, window in zip((self.short, self.long), self.windows, strict=True):
            graph = speaker_graph(batch.speakers, batch.mask, window)
            state, states = below, []
            for layer in layers:
                state = layer(state, *graph)
                states.append(state.masked_fill(~batch.mask.unsqueeze(2), 0))
            branches.append(states)
        parts = [below, below]
        for i, (short, long) in enumerate(zip(*branches, strict=True)):
            of_long = self._read(short, self.affine_short, long, batch.mask)
            of_short = self._read(long, self.affine_long, short, batch.mask)
            if i < len(self.short) - 1:
                of_long, of_short = self.dropout(of_long), self.dropout(of_short)
            parts += [of_long, of_short]
        hidden = torch.cat([*parts, x], dim=2)
        for layer in self.hidden:
            hidden = F.relu(layer(hidden))
        return LSDGNNOutput(self.classifier(self.dropout(hidden)), *branches)

    @staticmethod
    def _read(states: Tensor, affine: Tensor, others: Tensor, mask: Tensor) -> Tensor:
        """Bilinear attention of `states` to `others`, `[B, T, H]` each."""
        scores = torch.bmm(states @ affine, others.transpose(1, 2)).masked_fill(~mask.unsqueeze(1), -1e30)
        return torch.bmm(torch.softmax(scores, dim=2), others)


@dataclasses.dataclass(frozen=True)
class LSDGNNLoss:
    """The loss of `jmer.models.lsdgnn.LSDGNNLoss`, whose difference is that of conversations.

    Attributes:
      beta: weight of the difference.
    """

    beta: float = 0.1

    def __call__(self, output: LSDGNNOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total and the terms by name."""
        classification = cross_entropy(output.logits, batch.labels)
        real = batch.mask.any(1)
        difference = sum(
            1 / torch.linalg.vector_norm(_scaled(short[real]) - _scaled(long[real]), dim=1).mean()
            for short, long in zip(output.short, output.long, strict=True)
        )
        terms = {"classification": classification, "difference": difference}
        return classification + self.beta * difference, terms


def _scaled(states: Tensor) -> Tensor:
    """Centres conversations' states `[B, T, H]` over the batch, and scales those of each to length 1."""
    vectors = states.flatten(1)
    vectors = vectors - vectors.mean(0, keepdim=True)
    return vectors / (torch.linalg.vector_norm(vectors, dim=1, keepdim=True) + 1e-6)


def load_parameters(module: LSDGNN, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.lsdgnn.LSDGNN`."""
    load_linear(module.input, params["input"])
    for i in range(len(module.short)):
        for branch, layers in enumerate((module.short, module.long)):
            load_layer(layers[i], one_of(params["branches"][f"layer_{i}"], branch))
    set_parameter(module.affine_short, params["exchange"]["first_kernel"])
    set_parameter(module.affine_long, params["exchange"]["second_kernel"])
    for i, layer in enumerate(module.hidden):
        load_linear(layer, params[f"hidden_{i}"])
    load_linear(module.classifier, params["classifier"])
