"""What MMGCN and MM-DFN share in PyTorch: a dense matrix of all nodes of a batch, as in their code.

An utterance that lacks a modality has a node without edges, where their code knows only zeros. None lacks text.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.benchmarks.plain_torch.classification import ClassifierOutput
from experiments.benchmarks.plain_torch.convert import load_gru, load_linear, set_parameter
from jmer.batch import Batch

KAPPA = 0.99999


def run_real(rnn: nn.LSTM | nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    """Runs a network over sequences `[B, T, D]` of real lengths `[B]`, some of which may be 0; zero in padding."""
    real = lengths > 0
    packed = pack_padded_sequence(x[real], lengths[real].cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])
    out = x.new_zeros(*x.shape[:2], states.shape[2])
    out[real] = states
    return out


def real_utterances(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """Returns the real ones of `[B, T, ...]`, conversation after conversation, `[N, ...]`."""
    return torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)])


def propagation(encoded: Sequence[Tensor], there: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """Returns the normalized edges of all nodes of a batch, `[M N, M N]`.

    Args:
      encoded: each modality's encodings `[N, D]`, zero where an utterance lacks it.
      there: 1 where an utterance has the modality and 0 where not, `[N]` for each.
      lengths: of the conversations, which follow one another.
    """
    count, units = len(encoded[0]), [x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in encoded]
    edges = encoded[0].new_zeros(len(units) * count, len(units) * count)
    start = 0
    for length in lengths:
        rows = torch.arange(start, start + length, device=edges.device)
        for m, (unit, real) in enumerate(zip(units, there, strict=True)):
            first = m * count + start
            block = _weights(unit[rows] @ unit[rows].T) * real[rows, None] * real[rows]
            edges[first : first + length, first : first + length] = block
            for k, other in enumerate(units):
                if k != m:
                    both = real[rows] * there[k][rows]
                    edges[m * count + rows, k * count + rows] = _weights((unit[rows] * other[rows]).sum(1)) * both
        start += length
    scale = torch.diag((edges.sum(1) + 1 - torch.cat(list(there))).rsqrt())
    return scale @ edges @ scale


def _weights(cosine: Tensor) -> Tensor:
    return 1 - torch.acos(KAPPA * cosine) / math.pi


class DeepGraphNetwork(nn.Module):
    """Graph convolutions over encoded modalities, and the classifier on both.

    Args:
      modalities: their number.
      width: of an encoding.
      num_classes, d_graph, graph_layers, alpha, lamda, dropout_rate: see `jmer.models.mmgcn.MMGCN`.
      dynamic: whether an LSTM runs along the layers, which then add up.
    """

    def __init__(
        self,
        modalities: int,
        width: int,
        num_classes: int,
        *,
        d_graph: int,
        graph_layers: int,
        alpha: float,
        lamda: float,
        dropout_rate: float,
        dynamic: bool = False,
    ):
        super().__init__()
        self.alpha, self.lamda = alpha, lamda
        self.input = nn.Linear(width, d_graph)
        bound = d_graph**-0.5
        self.kernels = nn.ParameterList(
            torch.empty(2 * d_graph, d_graph).uniform_(-bound, bound) for _ in range(graph_layers)
        )
        self.cell = nn.LSTMCell(d_graph, d_graph) if dynamic else None
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(modalities * (width + d_graph), num_classes)

    def forward(self, encoded: Mapping[str, Tensor], batch: Batch) -> ClassifierOutput:
        """Predicts from each modality's encodings, `[B, T, width]`."""
        lengths = batch.mask.sum(1).tolist()
        there = [real_utterances(batch.available[m].to(x), lengths) for m, x in encoded.items()]
        nodes = [real_utterances(x, lengths) * real[:, None] for x, real in zip(encoded.values(), there, strict=True)]
        edges = propagation(nodes, there, lengths)
        z = self.dropout(torch.cat(nodes))
        start = F.relu(self.input(z))
        x, state = self.dropout(start), None
        for depth, kernel in enumerate(self.kernels, start=1):
            source = x
            if self.cell is not None:
                state = self.cell(x, state)
                source = state[0]
            theta = math.log(self.lamda / depth + 1)
            around = edges @ source
            kept = (1 - self.alpha) * around + self.alpha * start
            y = self.dropout(F.relu(theta * (torch.cat([around, start], 1) @ kernel) + (1 - theta) * kept))
            x = y if self.cell is None else x + y
        joined = torch.cat([z, x * torch.cat(there)[:, None]], 1).chunk(len(encoded))
        logits = self.classifier(F.relu(self.dropout(torch.cat(joined, 1)))).split(lengths)
        return ClassifierOutput(torch.stack([F.pad(row, (0, 0, 0, batch.mask.shape[1] - len(row))) for row in logits]))


def load_network(network: DeepGraphNetwork, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.graph_fusion.GraphClassifier`."""
    load_linear(network.input, params["graph_input"])
    load_linear(network.classifier, params["classifier"])
    for kernel, source in zip(network.kernels, params["graph"]["kernels"], strict=True):
        set_parameter(kernel, source)
    if network.cell is not None:
        load_gru(network.cell, params["graph"], "lstm")
