"""COGMEN (Joshi et al., 2022) in PyTorch: a padded encoder, edges in loops, relation by relation, as in its code."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_encoder_layer, load_linear, load_norm, set_parameter
from experiments.benchmarks.plain_torch.graph import Edges, summed, window_edges
from jmer.batch import Batch
from jmer.modalities import MODALITIES
from jmer.models.cogmen import usual_heads


class RelationalConvolution(nn.Module):
    """Relational convolution with a matrix for each relation: the mean of each relation's sources in turn."""

    def __init__(self, width: int, relations: int):
        super().__init__()
        self.kernels = nn.Parameter(torch.empty(relations, width, width))
        self.root = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.zeros(width))
        for matrix in (*self.kernels, self.root):
            nn.init.xavier_uniform_(matrix.data)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Maps the nodes `[N, H]` to `[N, H]`."""
        out = x @ self.root + self.bias
        for relation, kernel in enumerate(self.kernels):
            of_relation = edges.relation == relation
            source, target = edges.source[of_relation], edges.target[of_relation]
            count = summed(torch.ones_like(source, dtype=x.dtype), target, len(x)).clamp(min=1)
            out = out + summed(x[source], target, len(x)) / count.unsqueeze(1) @ kernel
        return out


class GraphAttention(nn.Module):
    """Attention along the edges, with several heads side by side."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.skip = (nn.Linear(width, heads * width) for _ in range(4))

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Maps the nodes `[N, H]` to `[N, heads * H]`."""
        query, key, value = (layer(x).view(len(x), self.heads, -1) for layer in (self.query, self.key, self.value))
        scores = (query[edges.target] * key[edges.source]).sum(2) * query.shape[2] ** -0.5
        target = edges.target.unsqueeze(1).expand_as(scores)
        highest = scores.new_zeros(len(x), self.heads).scatter_reduce(0, target, scores, "amax", include_self=False)
        powers = torch.exp(scores - highest[edges.target])
        weights = powers / summed(powers, edges.target, len(x))[edges.target]
        read = summed(weights.unsqueeze(2) * value[edges.source], edges.target, len(x))
        return read.flatten(1) + self.skip(x)


class COGMEN(nn.Module):
    """The network of `jmer.models.cogmen.COGMEN` with its default switches.

    Args:
      widths: modality -> width of its features, of those that are read.
      num_classes, encoder_width, encoder_layers, d_ff, d_h, window_past, window_future, speakers, graph_heads,
        dropout_rate: see `jmer.models.cogmen.COGMEN`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        encoder_width: int = 0,
        encoder_layers: int = 2,
        d_ff: int = 2048,
        d_h: int = 100,
        window_past: int = 5,
        window_future: int = 5,
        speakers: int = 2,
        graph_heads: int = 1,
        dropout_rate: float = 0.5,
    ):
        super().__init__()
        self.modalities = [m for m in MODALITIES if m in widths]
        self.back, self.ahead, self.speakers = window_past, window_future, speakers
        width = encoder_width or sum(widths.values())
        self.input = nn.Linear(sum(widths.values()), width) if encoder_width else nn.Identity()
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(width, usual_heads(width), d_ff, dropout_rate, batch_first=True)
            for _ in range(encoder_layers)
        )
        self.encoder_out = nn.Linear(width, d_h)
        self.relational = RelationalConvolution(d_h, 2 * speakers**2)
        self.graph_attention = GraphAttention(d_h, graph_heads)
        self.norm = nn.BatchNorm1d(graph_heads * d_h)
        self.hidden = nn.Linear(graph_heads * d_h, d_h)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(d_h, num_classes)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        lengths = batch.mask.sum(1).tolist()
        x = self.input(torch.cat([inputs(batch, m) for m in self.modalities], dim=2))
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=~batch.mask)
        context = self.encoder_out(x)
        # Seen from the source, a target that is earlier has it as a later one.
        edges = window_edges(
            lengths,
            batch.speakers.clamp(0, self.speakers - 1),
            past=self.ahead,
            future=self.back,
            num_speakers=self.speakers,
        )
        nodes = torch.cat([context[b, :length] for b, length in enumerate(lengths)])
        states = F.leaky_relu(self.norm(self.graph_attention(self.relational(nodes, edges), edges)))
        logits = self.classifier(self.dropout(F.relu(self.hidden(states))))
        padded = logits.new_zeros(*batch.mask.shape, logits.shape[1])
        padded[batch.mask] = logits
        return ClassifierOutput(padded)


def load_parameters(module: COGMEN, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.cogmen.COGMEN`."""
    if isinstance(module.input, nn.Linear):
        load_linear(module.input, params["input"])
    for i, layer in enumerate(module.encoder):
        load_encoder_layer(layer, params[f"encoder_{i}"])
    for name in ("encoder_out", "hidden", "classifier"):
        load_linear(getattr(module, name), params[name])
    for name, value in params["relational"].items():
        set_parameter(getattr(module.relational, name), value)
    for name in ("query", "key", "value"):
        load_linear(getattr(module.graph_attention, name), params["graph_attention"][name])
    load_linear(module.graph_attention.skip, params["graph_skip"])
    load_norm(module.norm, params["graph_norm"])


def load_statistics(module: COGMEN, statistics: Mapping[str, Any]) -> None:
    """Copies the running statistics of a `jmer.models.cogmen.COGMEN`."""
    set_parameter(module.norm.running_mean, statistics["graph_norm"]["mean"])
    set_parameter(module.norm.running_var, statistics["graph_norm"]["var"])
