"""M3NET (Chen et al., 2023) in PyTorch: lists of edges built conversation by conversation, messages edge by edge."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import (
    load_gru,
    load_linear,
    load_norm,
    load_norm_statistics,
    set_parameter,
)
from jmer.batch import Batch


def hyperedges(lengths: Sequence[int], modalities: int) -> Tensor:
    """Returns (node, hyperedge) pairs, int64 `[2, E]`.

    Nodes are numbered conversation by conversation, and in each modality by modality.
    """
    nodes: list[int] = []
    edges: list[int] = []
    first = edge = 0
    for n in lengths:
        of_modalities = [list(range(first + m * n, first + (m + 1) * n)) for m in range(modalities)]
        for hyperedge in of_modalities + [list(utterance) for utterance in zip(*of_modalities, strict=True)]:
            nodes += hyperedge
            edges += [edge] * len(hyperedge)
            edge += 1
        first += modalities * n
    return torch.tensor([nodes, edges])


def pairwise_edges(lengths: Sequence[int], modalities: int) -> Tensor:
    """Returns (source, target) pairs of nodes that share a modality or an utterance, int64 `[2, E]`."""
    edges: list[tuple[int, int]] = []
    first = 0
    for n in lengths:
        of_modalities = [list(range(first + m * n, first + (m + 1) * n)) for m in range(modalities)]
        for nodes in of_modalities + [list(utterance) for utterance in zip(*of_modalities, strict=True)]:
            edges += list(itertools.permutations(nodes, 2))
        first += modalities * n
    return torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T


class HypergraphConvolution(nn.Module):
    """Means from nodes to hyperedges and back; the bias is its only parameter."""

    def __init__(self, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, incidence: Tensor) -> Tensor:
        """Maps nodes `[N, D]` by (node, hyperedge) pairs `[2, E]`."""
        nodes, edges = incidence
        count = int(edges.max()) + 1
        of_edges = x.new_zeros(count).index_add(0, edges, x.new_ones(len(edges)))
        of_nodes = x.new_zeros(len(x)).index_add(0, nodes, x.new_ones(len(nodes)))
        means = x.new_zeros(count, x.shape[1]).index_add(0, edges, x[nodes] / of_edges[edges].unsqueeze(1))
        back = torch.zeros_like(x).index_add(0, nodes, means[edges] / of_nodes[nodes].unsqueeze(1))
        return F.leaky_relu(back + self.bias)


class GatedConvolution(nn.Module):
    """What nodes get from their neighbours, each edge with a gate of both its ends."""

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Linear(2 * width, 1)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Maps nodes `[N, D]` by (source, target) pairs `[2, E]`."""
        source, target = edges
        degree = x.new_zeros(len(x)).index_add(0, source, x.new_ones(len(source)))
        scale = degree.pow(-0.5)
        norm = scale[source] * scale[target]
        gate = torch.tanh(self.gate(torch.cat([x[target], x[source]], dim=1)))
        return torch.zeros_like(x).index_add(0, target, norm.unsqueeze(1) * x[source] * gate)


class M3NET(nn.Module):
    """The network of `jmer.models.m3net.M3NET` with its default options.

    Args:
      widths: modality -> width of its features, text among them.
      num_classes, d_g, d_q, rnn_layers, hyperedge_layers, gate_layers, speakers, dropout_rate: see
        `jmer.models.m3net.M3NET`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_g: int = 512,
        d_q: int = 512,
        rnn_layers: int = 2,
        hyperedge_layers: int = 3,
        gate_layers: int = 4,
        speakers: int = 2,
        dropout_rate: float = 0.5,
    ):
        super().__init__()
        self.text_norm = nn.BatchNorm1d(widths["text"])
        self.inputs = nn.ModuleDict(
            {m: nn.Linear(width, d_g) for m, width in widths.items() if m != "text" or width != d_g}
        )
        between = dropout_rate if rnn_layers > 1 else 0.0
        self.gru = nn.GRU(d_g, d_g // 2, rnn_layers, batch_first=True, bidirectional=True, dropout=between)
        self.speakers = nn.Embedding(speakers, d_g)
        self.node = nn.Linear(d_g, d_q)
        self.hyperedge_layers = nn.ModuleList(HypergraphConvolution(d_q) for _ in range(hyperedge_layers))
        self.gate_layers = nn.ModuleList(GatedConvolution(d_q) for _ in range(gate_layers))
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(2 * len(widths) * d_q, num_classes)
        self.modalities = tuple(widths)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        lengths = [n for n in batch.mask.sum(1).tolist() if n]
        encoded = {m: self._encode(m, batch)[batch.mask].split(lengths) for m in self.modalities}
        of_conversations = [torch.cat(of_one) for of_one in zip(*encoded.values(), strict=True)]
        nodes = self.node(torch.cat(of_conversations))
        count, device = len(self.modalities), nodes.device
        incidence, edges = hyperedges(lengths, count).to(device), pairwise_edges(lengths, count).to(device)
        smooth = gated = nodes
        for layer in self.hyperedge_layers:
            smooth = layer(smooth, incidence)
        for layer in self.gate_layers:
            gated = gated + layer(gated, edges)
        both = torch.cat([smooth, gated], dim=1).split([count * n for n in lengths])
        # Modality by modality within a conversation, side by side for the classifier.
        together = torch.cat([torch.cat(of_one.chunk(count), dim=1) for of_one in both])
        logits = self.classifier(F.relu(self.dropout(together)))
        padded = logits.new_zeros(*batch.mask.shape, logits.shape[1])
        padded[batch.mask] = logits
        return ClassifierOutput(padded)

    def _encode(self, modality: str, batch: Batch) -> Tensor:
        x = inputs(batch, modality)
        if modality != "text":
            return self.inputs[modality](x)
        there, normed = batch.available["text"], torch.zeros_like(x)
        normed[there] = self.text_norm(x[there])
        x = self.inputs["text"](normed) if "text" in self.inputs else normed
        real = batch.mask.any(1)
        packed = pack_padded_sequence(x[real], batch.mask[real].sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        context = states.new_zeros(*x.shape[:2], states.shape[2])
        context[real] = states
        return context + self.speakers(batch.speakers.clamp(0, self.speakers.num_embeddings - 1).long())


def load_parameters(module: M3NET, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.m3net.M3NET`."""
    load_norm(module.text_norm, params["text_norm"])
    for modality, layer in module.inputs.items():
        load_linear(layer, params[f"input_{modality}"])
    for i in range(module.gru.num_layers):
        load_gru(module.gru, params["gru"], f"layer_{i}_forward", f"_l{i}")
        load_gru(module.gru, params["gru"], f"layer_{i}_backward", f"_l{i}_reverse")
    set_parameter(module.speakers.weight, params["speakers"]["embedding"])
    load_linear(module.node, params["node"])
    for i, layer in enumerate(module.hyperedge_layers):
        set_parameter(layer.bias, params[f"hyperedge_layer_{i}"]["bias"])
    for i, layer in enumerate(module.gate_layers):
        source = params[f"gate_layer_{i}"]
        set_parameter(layer.gate.weight, np.concatenate([source["target_kernel"], source["source_kernel"]]).T)
        set_parameter(layer.gate.bias, np.reshape(source["bias"], 1))
    load_linear(module.classifier, params["classifier"])


def load_statistics(module: M3NET, statistics: Mapping[str, Any]) -> None:
    """Copies the running statistics, jmer's collection `batch_stats`."""
    load_norm_statistics(module.text_norm, statistics["text_norm"])
