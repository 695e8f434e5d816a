"""MultiEMO (Shi and Huang, 2023) in PyTorch: a recurrence for each modality, the contrast utterance by utterance."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import cross_entropy, inputs
from experiments.benchmarks.plain_torch.convert import load_linear, load_norm, one_of
from experiments.benchmarks.plain_torch.dialoguernn import Recurrence, load_recurrence, reversed_in_time, turns_of
from jmer.batch import Batch
from jmer.modalities import MODALITIES


class Context(nn.Module):
    """A modality's recurrence, in both directions or forward alone."""

    def __init__(self, width: int, bidirectional: bool):
        super().__init__()
        sizes = width, width, width, width, "simple", 0.0
        self.ahead = Recurrence(*sizes)
        self.back = Recurrence(*sizes) if bidirectional else None
        self.linear = nn.Linear(2 * width, width) if bidirectional else None

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor) -> Tensor:
        """Maps `x` `[B, T, d]` and `turns` `[T, B, P]` to `[B, T, d]`."""
        x = x.transpose(0, 1)
        states = self.ahead(x, turns)
        if self.back is not None and self.linear is not None:
            back = self.back(reversed_in_time(x, mask), reversed_in_time(turns, mask))
            states = self.linear(torch.cat([states, reversed_in_time(back, mask)], dim=2))
        return F.relu(states).transpose(0, 1)


class Attention(nn.Module):
    """Multi-head attention from one modality to another, and a norm."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, z: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Maps `z` and `y` `[B, T, d]`, `mask` `[B, T]` of the keys, to `[B, T, d]`."""
        query, key, value = (
            layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, z), (self.key, y), (self.value, y))
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask[:, None, None], -1e30).softmax(-1)
        return self.norm(z + self.output((weights @ value).transpose(1, 2).flatten(2)))


class CrossModalLayer(nn.Module):
    """Attention to one modality after the other, then a feed-forward part."""

    def __init__(self, width: int, num_heads: int, d_ff: int, others: int):
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width, num_heads) for _ in range(others))
        self.inner, self.outer = nn.Linear(width, d_ff), nn.Linear(d_ff, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, z: Tensor, others: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Maps `z` and the others `[B, T, d]` to `[B, T, d]`."""
        for attention, other in zip(self.attentions, others, strict=True):
            z = attention(z, other, mask)
        return self.norm(z + self.outer(F.relu(self.inner(z))))


@dataclasses.dataclass
class MultiEMOOutput:
    """The output of MultiEMO: `logits` `[B, T, C]`, modality -> `features` `[B, T, d]`, and `fused` `[B, T, d]`."""

    logits: Tensor
    features: Mapping[str, Tensor]
    fused: Tensor


class MultiEMO(nn.Module):
    """The network of `jmer.models.multiemo.MultiEMO`, without dropout, whose rate is 0 in its authors' commands.

    Args:
      widths: modality -> width of its features.
      speakers: parties that are updated; further ones count as the last.
      num_classes, d, bidirectional, text_context, num_layers, num_heads, d_ff, d_h: see
        `jmer.models.multiemo.MultiEMO`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        speakers: int,
        num_classes: int,
        *,
        d: int = 256,
        bidirectional: bool = True,
        text_context: bool = True,
        num_layers: int = 6,
        num_heads: int = 4,
        d_ff: int = 1024,
        d_h: int = 256,
    ):
        super().__init__()
        names = [m for m in MODALITIES if m in widths]
        self.speakers = speakers
        self.inputs = nn.ModuleDict({m: nn.Linear(widths[m], d) for m in names})
        read = [m for m in names if m != "text" or text_context]
        self.contexts = nn.ModuleDict({m: Context(d, bidirectional) for m in read})
        sizes = d, num_heads, d_ff, len(names) - 1
        self.layers = nn.ModuleDict(
            {m: nn.ModuleList(CrossModalLayer(*sizes) for _ in range(num_layers)) for m in names}
        )
        self.fusion = nn.Linear(len(names) * d, d)
        self.hidden, self.classifier = nn.Linear(d, d_h), nn.Linear(d_h, num_classes)

    def forward(self, batch: Batch) -> MultiEMOOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        context = {m: layer(inputs(batch, m)) for m, layer in self.inputs.items()}
        turns = turns_of(batch.speakers, batch.mask, self.speakers).to(context[next(iter(context))].dtype)
        for m, layer in self.contexts.items():
            context[m] = layer(context[m], turns, batch.mask)
        features = {}
        for m, layers in self.layers.items():
            others, features[m] = [x for other, x in context.items() if other != m], context[m]
            for layer in layers:
                features[m] = layer(features[m], others, batch.mask)
        fused = self.fusion(torch.cat(list(features.values()), dim=2))
        return MultiEMOOutput(self.classifier(F.relu(self.hidden(fused))), features, fused)


@dataclasses.dataclass(frozen=True)
class MultiEMOLoss:
    """The loss of `jmer.models.multiemo.MultiEMOLoss` with the published correlation.

    Attributes:
      lambda_correlation, lambda_contrast, lambda_classification, alpha, focal_gamma, tau, class_weights: see there.
    """

    lambda_correlation: float
    lambda_contrast: float
    lambda_classification: float
    alpha: float
    focal_gamma: float
    tau: float
    class_weights: Sequence[float] = ()

    def __call__(self, output: MultiEMOOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total and its terms."""
        labelled = batch.labels >= 0
        terms = {
            "correlation": correlation([x[batch.mask] for x in output.features.values()]),
            "contrast": self._contrast(output.fused[labelled], batch.labels[labelled], output.logits.shape[2]),
            "classification": cross_entropy(output.logits, batch.labels),
        }
        return sum(getattr(self, f"lambda_{name}") * term for name, term in terms.items()), terms

    def _contrast(self, fused: Tensor, labels: Tensor, classes: int) -> Tensor:
        weights = torch.tensor(self.class_weights or (1.0,) * classes, dtype=fused.dtype) ** self.alpha
        weights = (weights / weights.sum()).to(fused.device)
        unit = F.normalize(fused, dim=1)
        similarity, total = unit @ unit.T / self.tau, fused.new_zeros(())
        for i in range(len(fused)):
            others = torch.arange(len(fused), device=fused.device) != i
            log_p = F.log_softmax(similarity[i][others], dim=0)[labels[others] == labels[i]]
            if len(log_p):
                total = total - weights[labels[i]] * ((1 - log_p.exp()) ** self.focal_gamma * log_p).mean()
        return total / len(fused)


def correlation(features: Sequence[Tensor]) -> Tensor:
    """Returns the negative Soft-HGR correlation of the modalities' `[N, d]`, covariances between utterances."""
    count, total = len(features[0]), features[0].new_zeros(())
    for one, other in itertools.combinations(features, 2):
        joint = (one * other).sum() / count
        total = total + joint - torch.trace(torch.cov(one) @ torch.cov(other)) / (2 * count)
    return -total / count


def load_parameters(module: MultiEMO, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.multiemo.MultiEMO`."""
    for m, layer in module.inputs.items():
        load_linear(layer, params[f"input_{m}"])
    for m, context in module.contexts.items():
        load_recurrence(context.ahead, params["recurrences"], f"{m}_forward")
        if context.back is not None:
            load_recurrence(context.back, params["recurrences"], f"{m}_backward")
            load_linear(context.linear, params[f"context_{m}"])
    for i, layers in enumerate(module.layers.values()):
        for k, layer in enumerate(layers):
            _load_layer(layer, one_of(params[f"cross_{k}"], i))
    for name in ("fusion", "hidden", "classifier"):
        load_linear(getattr(module, name), params[name])


def _load_layer(layer: CrossModalLayer, params: Mapping[str, Any]) -> None:
    for i, attention in enumerate(layer.attentions):
        for name in ("query", "key", "value", "output"):
            load_linear(getattr(attention, name), params[f"attention_{i}"]["attention"][name])
        load_norm(attention.norm, params[f"attention_{i}"]["norm"])
    load_linear(layer.inner, params["feed_forward"]["inner"])
    load_linear(layer.outer, params["feed_forward"]["outer"])
    load_norm(layer.norm, params["feed_forward"]["norm"])
