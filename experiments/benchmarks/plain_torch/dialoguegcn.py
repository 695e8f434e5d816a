"""DialogueGCN (Ghosal et al., 2019) in PyTorch: windows and edges in loops, a matrix for each edge, as public code."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_linear, load_stacked, set_parameter
from experiments.benchmarks.plain_torch.graph import Edges, summed, window_edges
from jmer.batch import Batch
from jmer.modalities import MODALITIES


class EdgeAttention(nn.Module):
    """How each utterance shares its weight among the utterances in its window."""

    def __init__(self, width: int, past: int, future: int):
        super().__init__()
        self.past, self.future = past, future
        self.weight = nn.Parameter(torch.randn(width, width) * width**-0.5)

    def forward(self, context: Tensor, lengths: list[int]) -> list[Tensor]:
        """Maps `[B, T, d]` to the shares of each conversation, `[T, T]`, one utterance at a time."""
        keys, shares = context @ self.weight.T, []
        for b, length in enumerate(lengths):
            share = context.new_zeros(length, length)
            for j in range(length):
                start, end = max(j - self.past, 0), min(j + self.future, length - 1) + 1
                share[j, start:end] = F.softmax(keys[b, start:end] @ context[b, j], dim=0)
            shares.append(share)
        return shares


class RelationalConvolution(nn.Module):
    """Relational convolution with bases: the matrix of each edge's relation is gathered and multiplied by itself."""

    def __init__(self, width: int, features: int, relations: int, bases: int):
        super().__init__()
        self.basis = nn.Parameter(torch.randn(bases, width, features) * (bases * width) ** -0.5)
        self.coefficients = nn.Parameter(torch.randn(relations, bases) * (bases * width) ** -0.5)
        self.root = nn.Parameter(torch.randn(width, features) * (bases * width) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Maps the nodes `[N, D]` to `[N, features]`."""
        kernels = (self.coefficients @ self.basis.flatten(1)).view(-1, *self.basis.shape[1:])
        sent = torch.bmm(x[edges.source].unsqueeze(1), kernels[edges.relation]).squeeze(1)
        return summed(sent * edges.shares.unsqueeze(1), edges.target, len(x)) + x @ self.root + self.bias


class DialogueGCN(nn.Module):
    """The network of `jmer.models.dialoguegcn.DialogueGCN` with its default switches.

    Args:
      widths: modality -> width of its features, of those that are read.
      num_classes, d_rnn, num_bases, d_h1, d_h2, d_hidden, window_past, window_future, speakers, dropout_rate: see
        `jmer.models.dialoguegcn.DialogueGCN`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_rnn: int = 100,
        num_bases: int = 30,
        d_h1: int = 100,
        d_h2: int = 100,
        d_hidden: int = 100,
        window_past: int = 10,
        window_future: int = 10,
        speakers: int = 2,
        dropout_rate: float = 0.4,
    ):
        super().__init__()
        self.modalities = [m for m in MODALITIES if m in widths]
        self.past, self.future, self.speakers = window_past, window_future, speakers
        width = 2 * d_rnn
        self.rnn = nn.LSTM(sum(widths.values()), d_rnn, 2, batch_first=True, bidirectional=True, dropout=dropout_rate)
        self.edge_attention = EdgeAttention(width, window_past, window_future)
        self.relational = RelationalConvolution(width, d_h1, 2 * speakers**2, num_bases)
        self.neighbour = nn.Linear(d_h1, d_h2, bias=False)
        self.root = nn.Linear(d_h1, d_h2)
        self.nodal_attention = nn.Linear(width + d_h2, width + d_h2)
        self.hidden = nn.Linear(width + d_h2, d_hidden)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(d_hidden, num_classes)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors and no empty row."""
        lengths = batch.mask.sum(1).tolist()
        x = torch.cat([inputs(batch, m) for m in self.modalities], dim=2)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        context, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        shares = self.edge_attention(context, lengths)
        edges = window_edges(
            lengths,
            batch.speakers.clamp(0, self.speakers - 1),
            past=self.past,
            future=self.future,
            num_speakers=self.speakers,
            share=lambda b, source, target: shares[b][source, target],
        )
        nodes = torch.cat([context[b, :length] for b, length in enumerate(lengths)])
        states = self.relational(nodes, edges)
        states = summed(self.neighbour(states)[edges.source], edges.target, len(states)) + self.root(states)
        states = self._attend(torch.cat([nodes, states], dim=1), lengths)
        logits = self.classifier(self.dropout(F.relu(self.hidden(states))))
        padded = logits.new_zeros(*batch.mask.shape, logits.shape[1])
        padded[batch.mask] = logits
        return ClassifierOutput(padded)

    def _attend(self, states: Tensor, lengths: list[int]) -> Tensor:
        """Attends over each conversation in turn, from `[N, F]` to `[N, F]`."""
        attended = []
        for own in states.split(lengths):
            attended.append(F.softmax(own @ self.nodal_attention(own).T, dim=1) @ own)
        return torch.cat(attended)


def load_parameters(module: DialogueGCN, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.dialoguegcn.DialogueGCN`."""
    load_stacked(module.rnn, params["encoder"])
    set_parameter(module.edge_attention.weight, params["edge_attention"])
    for name, value in params["relational"].items():
        set_parameter(getattr(module.relational, name), value)
    load_linear(module.neighbour, params["graph_neighbour"])
    load_linear(module.root, params["graph_root"])
    for name in ("nodal_attention", "hidden", "classifier"):
        load_linear(getattr(module, name), params[name])
