"""GraphSmile (Li et al., 2025) in PyTorch: for each pair of modalities one dense graph over the whole batch."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import cross_entropy, inputs
from experiments.benchmarks.plain_torch.convert import load_linear, load_norm, load_norm_statistics, set_parameter
from jmer.batch import Batch

SENTIMENTS = ("negative", "neutral", "positive")


def cross_modal_edges(lengths: Sequence[int], window_past: int, window_future: int) -> Tensor:
    """Returns (target, source) pairs of nodes of two modalities, int64 `[2, E]`.

    Nodes are all utterances in the first modality, then all in the second one.
    """
    total, first = sum(lengths), 0
    edges: list[tuple[int, int]] = []
    for n in lengths:
        for own, other in ((0, total), (total, 0)):
            for j in range(n):
                sources = range(max(0, j - window_past), min(n, j + window_future + 1))
                edges += itertools.product([own + first + j], [other + first + k for k in sources])
        first += n
    return torch.tensor(edges).T


def normalized(edges: Tensor, weights: Tensor, count: int) -> Tensor:
    """Returns the weighted adjacency matrix of `count` nodes, degrees divided out by two products as in their code."""
    adjacency = weights.new_zeros(count, count).index_put((edges[0], edges[1]), weights)
    scale = torch.diag_embed(adjacency.sum(1).pow(-0.5))
    return scale @ (adjacency @ scale)


class PairGraph(nn.Module):
    """The layers of one pair of modalities.

    Its authors learn a weight for each running number of an edge in the batch, 1 at first. So does this class: their
    gradient is part of the time of a step. In jmer edges weigh 1.
    """

    MOST_EDGES = 500_000

    def __init__(self, width: int, layers: int, dropout_rate: float):
        super().__init__()
        self.edge_weights = nn.Parameter(torch.ones(self.MOST_EDGES))
        self.kernels = nn.ParameterList(nn.Parameter(torch.empty(width, width)) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.empty(width)) for _ in range(layers))
        self.outputs = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout_rate)
        for parameter in (*self.kernels, *self.biases):
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)

    def forward(self, pair: tuple[Tensor, Tensor], edges: Tensor) -> tuple[Tensor, ...]:
        """Maps both modalities' utterances, `[N, D]` each."""
        y = total = torch.cat(pair)
        adjacency = normalized(edges, self.edge_weights[: edges.shape[1]], len(y))
        for kernel, bias, output in zip(self.kernels, self.biases, self.outputs, strict=True):
            y = adjacency @ (y @ kernel) + bias
            total = total + self.dropout(F.leaky_relu(output(y)))
        return total.chunk(2)


@dataclasses.dataclass
class GraphSmileOutput:
    """The output of GraphSmile.

    Attributes:
      logits: `[B, T, C]`.
      sentiment_logits: `[N, 3]`, of the real utterances, row by row.
      shift_logits: `[P, 2]`, of the pairs.
      shift_pairs: int64 `[P, 2]`, the numbers of their utterances.
    """

    logits: Tensor
    sentiment_logits: Tensor
    shift_logits: Tensor
    shift_pairs: Tensor


class GraphSmile(nn.Module):
    """The network of `jmer.models.graphsmile.GraphSmile` with its default options, on all three modalities.

    Args:
      widths: modality -> width of its features.
      num_classes, d_h, window_past, window_future, pair_layers, shift_window, dropout_rate: see
        `jmer.models.graphsmile.GraphSmile`.
    """

    PAIRS = (("text", "visual"), ("text", "audio"), ("visual", "audio"))

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_h: int = 512,
        window_past: int = 17,
        window_future: int = 17,
        pair_layers: Sequence[int] = (7, 7, 7),
        shift_window: int = 19,
        dropout_rate: float = 0.2,
    ):
        super().__init__()
        self.window_past, self.window_future, self.shift_window = window_past, window_future, shift_window
        self.text_norm = nn.BatchNorm1d(widths["text"])
        self.inputs = nn.ModuleDict({m: nn.Linear(width, d_h) for m, width in widths.items()})
        self.graphs = nn.ModuleDict(
            {"_".join(pair): PairGraph(d_h, n, dropout_rate) for pair, n in zip(self.PAIRS, pair_layers, strict=True)}
        )
        self.dropout = nn.Dropout(dropout_rate)
        self.fusion = nn.Linear(d_h, d_h)
        self.classifier = nn.Linear(d_h, num_classes)
        self.sentiment = nn.Linear(d_h, 3)
        self.shift = nn.Linear(2 * d_h, 2)

    def forward(self, batch: Batch) -> GraphSmileOutput:
        """Predicts every utterance's emotion, sentiment and shifts; the batch holds tensors."""
        lengths = batch.mask.sum(1).tolist()
        encoded = {m: self._encode(m, batch)[batch.mask] for m in self.inputs}
        edges = cross_modal_edges(lengths, self.window_past, self.window_future).to(batch.mask.device)
        results: list[Tensor] = []
        for pair in self.PAIRS:
            results += self.graphs["_".join(pair)]((encoded[pair[0]], encoded[pair[1]]), edges)
        fused = torch.stack([F.leaky_relu(self.fusion(result)) for result in results]).mean(0)
        logits = self.classifier(fused)
        padded = logits.new_zeros(*batch.mask.shape, logits.shape[1])
        padded[batch.mask] = logits
        shift_logits, pairs = self._shifts(fused, lengths)
        return GraphSmileOutput(padded, self.sentiment(fused), shift_logits, pairs)

    def _encode(self, modality: str, batch: Batch) -> Tensor:
        x = inputs(batch, modality)
        if modality == "text":
            there, normed = batch.available["text"], torch.zeros_like(x)
            normed[there] = self.text_norm(x[there])
            x = normed
        return self.dropout(F.leaky_relu(self.inputs[modality](x)))

    def _shifts(self, fused: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns the shifts' logits and the pairs of utterances, block by block."""
        sides, pairs = [], []
        numbers, first = torch.arange(len(fused), device=fused.device), 0
        for n in lengths:
            for block in numbers[first : first + n].split(self.shift_window) if n else ():
                size, own = len(block), fused[block]
                left, right = own.unsqueeze(1).repeat(1, size, 1), own.unsqueeze(0).repeat(size, 1, 1)
                sides.append(torch.cat([left, right], dim=2).flatten(0, 1))
                pairs.append(torch.cartesian_prod(block, block).reshape(-1, 2))
            first += n
        return self.shift(torch.cat(sides)), torch.cat(pairs)


@dataclasses.dataclass(frozen=True)
class GraphSmileLoss:
    """The loss of `jmer.models.graphsmile.GraphSmileLoss`."""

    lambda_emotion: float
    lambda_sentiment: float
    lambda_shift: float
    emotion_sentiments: Sequence[str]

    def __call__(self, output: GraphSmileOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total, and its terms by name."""
        of_emotions = batch.labels.new_tensor([SENTIMENTS.index(name) for name in self.emotion_sentiments])
        labels = batch.labels[batch.mask].long()
        sentiments = torch.where(labels >= 0, of_emotions[labels.clamp(min=0)], -1)
        left, right = sentiments[output.shift_pairs].unbind(1)
        shifts = torch.where((left >= 0) & (right >= 0), (left != right).to(left.dtype), -1)
        terms = {
            "emotion": cross_entropy(output.logits, batch.labels),
            "sentiment": cross_entropy(output.sentiment_logits, sentiments),
            "shift": cross_entropy(output.shift_logits, shifts),
        }
        weights = {"emotion": self.lambda_emotion, "sentiment": self.lambda_sentiment, "shift": self.lambda_shift}
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum(), terms


def load_parameters(module: GraphSmile, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.graphsmile.GraphSmile`."""
    load_norm(module.text_norm, params["text_norm"])
    for modality, layer in module.inputs.items():
        load_linear(layer, params[f"input_{modality}"])
    for name, graph in module.graphs.items():
        for i, output in enumerate(graph.outputs):
            set_parameter(graph.kernels[i], params[name][f"layer_{i}_graph_kernel"])
            set_parameter(graph.biases[i], params[name][f"layer_{i}_graph_bias"])
            load_linear(output, {end: params[name][f"layer_{i}_output_{end}"] for end in ("kernel", "bias")})
    for name in ("fusion", "classifier", "sentiment"):
        load_linear(getattr(module, name), params[name])
    load_linear(module.shift, {end: params[f"shift_{end}"] for end in ("kernel", "bias")})


def load_statistics(module: GraphSmile, statistics: Mapping[str, Any]) -> None:
    """Copies the running statistics, jmer's collection `batch_stats`."""
    load_norm_statistics(module.text_norm, statistics["text_norm"])
