"""SDT in plain PyTorch (Ma et al., 2023, arXiv:2310.20494): with one encoder per path, called in turn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.plain_torch.convert import load_linear, set_parameter
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

_LONGEST = 512


class SDT(nn.Module):
    """The network of `jmer.models.sdt.SDT` with its default options, for conversations of up to 512 utterances.

    Args:
      widths: modality -> `D_m`, of two or three modalities.
      num_classes: `C`.
      loss: called with the output and the batch.
      d, num_heads, speakers, dropout_rate: see `jmer.models.sdt.SDT`.
      learned_gates: True = its `unimodal_gate` is `learned`, False = `identity`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        loss: SelfDistillationLoss,
        *,
        d: int = 1024,
        num_heads: int = 8,
        speakers: int = 2,
        learned_gates: bool = True,
        dropout_rate: float = 0.5,
    ):
        super().__init__()
        self.loss = loss
        names = [m for m in MODALITIES if m in widths]
        self.paths = [(source, m) for m in names for source in (m, *(other for other in names if other != m))]
        self.inputs = nn.ModuleDict({m: nn.Conv1d(widths[m], d, kernel_size=1, bias=False) for m in names})
        self.speakers = nn.Embedding(speakers, d)
        self.register_buffer("positions", _positions(_LONGEST, d), persistent=False)
        self.dropout = nn.Dropout(dropout_rate)
        self.encoders = nn.ModuleDict(
            {path_name(path): EncoderLayer(d, num_heads, dropout_rate) for path in self.paths}
        )
        self.reduction = GatedReduction(self.paths, d, learned_gates)
        self.fusion = MultimodalGate(d)
        self.heads = Heads(names, num_classes, d, dropout_rate)

    def forward(self, batch: Batch) -> Output:
        """Predicts every utterance's emotion.

        Args:
          batch: a `jmer.batch.Batch` of tensors; features are zero where padded or unavailable.
        """
        present = {m: batch.available[m] & batch.mask for m in self.inputs}
        who = self.speakers(batch.speakers.clamp(0, self.speakers.num_embeddings - 1))
        streams = {}
        for m, convolution in self.inputs.items():
            x = convolution(batch.features[m].transpose(1, 2)).transpose(1, 2)
            streams[m] = self.dropout(x + self.positions[: x.shape[1]] + who)
        contexts = {}
        for source, target in self.paths:
            encoder = self.encoders[path_name((source, target))]
            contexts[source, target] = encoder(streams[target], streams[source], present[source])
        features = {m: x.masked_fill(~present[m][..., None], 0) for m, x in self.reduction(contexts).items()}
        return self.heads(self.fusion(features, present), features)


class EncoderLayer(nn.Module):
    """Attention from a target's utterances to a source's, and a position-wise network."""

    def __init__(self, d: int, num_heads: int, dropout_rate: float):
        super().__init__()
        self.attention = MultiHeadAttention(d, num_heads, dropout_rate)
        self.dropout = nn.Dropout(dropout_rate)
        self.feed_forward = FeedForward(d, d, dropout_rate)

    def forward(self, target: Tensor, source: Tensor, source_mask: Tensor) -> Tensor:
        return self.feed_forward(target + self.dropout(self.attention(target, source, source_mask)))


class MultiHeadAttention(nn.Module):
    """Masked multi-head dot-product attention with biases and an output projection."""

    def __init__(self, d: int, num_heads: int, dropout_rate: float):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(d, d) for _ in range(4))
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, target: Tensor, source: Tensor, source_mask: Tensor) -> Tensor:
        query, key, value = map(self._split, (self.query(target), self.key(source), self.value(source)))
        weights = self.dropout(attention_weights(query, key, source_mask[:, None, None]))
        return self.output((weights @ value).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _positions(length: int, width: int) -> Tensor:
    """Returns sinusoidal encodings `[length, width]`."""
    angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width].float()


def load_parameters(module: SDT, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.sdt.SDT` with the same options."""
    for m, convolution in module.inputs.items():
        set_parameter(convolution.weight, np.asarray(params[f"input_{m}"]["kernel"]).T[..., None])
    set_parameter(module.speakers.weight, params["speakers"]["embedding"])
    for i, encoder in enumerate(module.encoders.values()):
        for name in ("query", "key", "value", "output"):
            one = {"kernel": params["attention"][name][i], "bias": params["attention"][f"{name}_bias"][i]}
            load_linear(getattr(encoder.attention, name), one)
        load_feed_forward(encoder.feed_forward, one_of(params["feed_forward"], i))
    load_reduction(module.reduction, params["reduction"])
    load_linear(module.fusion.linear, params["fusion"]["gate"])
    load_heads(module.heads, params["heads"])
