"""LPGNet in plain PyTorch (2025): utterance features, with one attention module per path, called in turn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.convert import load_linear, load_norm, set_parameter
from experiments.benchmarks.plain_torch.self_distillation import (
    FeedForward,
    GatedReduction,
    Heads,
    MultimodalGate,
    Output,
    SelfDistillationLoss,
    attention_weights,
    load_feed_forward,
    load_heads,
    load_reduction,
    one_of,
    path_name,
)
from jmer.batch import Batch
from jmer.modalities import MODALITIES


class LPGNet(nn.Module):
    """The network of `jmer.models.lpgnet.LPGNet` with its default options.

    Args:
      widths: modality -> `D_m`, of two or three modalities.
      num_classes: `C`.
      loss: called with the output and the batch.
      d, dropout_rate: see `jmer.models.lpgnet.LPGNet`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        loss: SelfDistillationLoss,
        *,
        d: int = 256,
        dropout_rate: float = 0.5,
    ):
        super().__init__()
        self.loss = loss
        names = [m for m in MODALITIES if m in widths]
        self.paths = [(m, m) for m in names] + [(source, m) for m in names for source in names if source != m]
        self.convolutions = nn.ModuleDict(
            {m: nn.Conv1d(widths[m], d, kernel_size=3, padding=1, bias=False) for m in names}
        )
        self.interactions = nn.ModuleDict({path_name(path): Interaction(d, dropout_rate) for path in self.paths})
        self.reduction = GatedReduction(self.paths, d)
        self.fusion = MultimodalGate(d)
        self.heads = Heads(names, num_classes, d, dropout_rate)

    def forward(self, batch: Batch) -> Output:
        """Predicts every utterance's emotion; in training mode also updates the running statistics.

        Args:
          batch: a `jmer.batch.Batch` of tensors; features are zero where padded or unavailable.
        """
        present = {m: batch.available[m] & batch.mask for m in self.convolutions}
        encoded = {
            m: convolution(batch.features[m].transpose(1, 2)).transpose(1, 2)
            for m, convolution in self.convolutions.items()
        }
        enhanced = {}
        for source, target in self.paths:
            interaction = self.interactions[path_name((source, target))]
            enhanced[source, target] = interaction(encoded[target], encoded[source], present[target], present[source])
        features = {m: x.masked_fill(~present[m][..., None], 0) for m, x in self.reduction(enhanced).items()}
        return self.heads(self.fusion(features, present), features)


class Interaction(nn.Module):
    """One path: attention from a target to a source, whose result is compressed to one vector, added and refined."""

    def __init__(self, d: int, dropout_rate: float):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))
        # A convolution of kernel 1 on a sequence of one vector.
        self.compression = nn.Linear(d, d)
        self.norm = MaskedBatchNorm(d)
        self.feed_forward = FeedForward(d, 2 * d, dropout_rate)

    def forward(self, target: Tensor, source: Tensor, target_mask: Tensor, source_mask: Tensor) -> Tensor:
        weights = attention_weights(self.query(target), self.key(source), source_mask[:, None])
        context = (weights @ self.value(source)).masked_fill(~target_mask[..., None], 0)
        pooled = context.sum(1) / target_mask.sum(1, keepdim=True).clamp(min=1)
        present = target_mask.any(1) & source_mask.any(1)
        compressed = F.leaky_relu(self.norm(self.compression(pooled), present)).masked_fill(~present[:, None], 0)
        return self.feed_forward(target + compressed[:, None])


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalization over real rows; with fewer than two, training uses the running statistics."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalizes `x` `[N, D]` by its rows where `mask` `[N]` is True; the results of other rows are arbitrary."""
        mean, variance = self._statistics(x, mask) if self.training else (self.running_mean, self.running_var)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    def _statistics(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns this batch's mean and biased variance, `[D]` each, and updates the running ones."""
        real = mask[:, None].to(x.dtype)
        count = real.sum()
        mean = (x * real).sum(0) / count.clamp(min=1)
        variance = ((x - mean).square() * real).sum(0) / count.clamp(min=1)
        enough = count > 1
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            share = self.momentum * enough.to(x.dtype)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(unbiased, share)
        return torch.where(enough, mean, self.running_mean), torch.where(enough, variance, self.running_var)


def load_parameters(module: LPGNet, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.lpgnet.LPGNet` with the same options."""
    for m, convolution in module.convolutions.items():
        set_parameter(convolution.weight, np.asarray(params[f"conv_{m}"]["kernel"]).transpose(2, 1, 0))
    for i, interaction in enumerate(module.interactions.values()):
        for name in ("query", "key", "value"):
            load_linear(getattr(interaction, name), {"kernel": params["attention_0"][name][i]})
        enhancement = one_of(params["enhancement_0"], i)
        load_linear(interaction.compression, enhancement["conv"])
        load_norm(interaction.norm, enhancement["norm"])
        load_feed_forward(interaction.feed_forward, enhancement["ffn"])
    load_reduction(module.reduction, params["unimodal_fusion"])
    load_linear(module.fusion.linear, params["multimodal_gate"]["gate"])
    load_heads(module.heads, params["heads"])


def load_statistics(module: LPGNet, statistics: Mapping[str, Any]) -> None:
    """Copies the running statistics, jmer's collection `batch_stats`."""
    for i, interaction in enumerate(module.interactions.values()):
        one = one_of(statistics["enhancement_0"]["norm"], i)
        set_parameter(interaction.norm.running_mean, one["mean"])
        set_parameter(interaction.norm.running_var, one["var"])
