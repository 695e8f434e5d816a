"""The network in the manner of M2FNet in PyTorch: its layers of transformers on the padded batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_attention, load_encoder_layer, load_linear
from jmer.batch import Batch
from jmer.modalities import MODALITIES
from jmer.models.m2fnet_like import most_heads


class FusionLayer(nn.Module):
    """The leading modality asks the others which of it to mix."""

    def __init__(self, width: int, heads: int, others: int):
        super().__init__()
        self.attention = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(others))
        self.linear = nn.Linear((others + 1) * width, width)

    def forward(self, leading: Tensor, others: Sequence[Tensor], padding: Tensor) -> Tensor:
        """Maps `leading` `[B, T, D]`, with `padding` True where nothing is, to its shape."""
        parts = [
            attention(leading, other, leading, key_padding_mask=padding, need_weights=False)[0]
            for attention, other in zip(self.attention, others, strict=True)
        ]
        return F.relu(self.linear(F.relu(torch.cat([*parts, leading], dim=2))))


class M2FNetLike(nn.Module):
    """The network of `jmer.models.m2fnet_like.M2FNetLike` with one encoder per modality, as wide as the features.

    Args:
      widths: modality -> width of its features, of those that are read.
      num_classes, d, encoder_layers, d_ff, num_heads, fusion_layers, dropout_rate: see
        `jmer.models.m2fnet_like.M2FNetLike`.
      encoder_width: width of a linear layer before the encoders; 0 = no such layer.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d: int = 512,
        encoder_width: int = 0,
        encoder_layers: int = 5,
        d_ff: int = 2048,
        num_heads: int = 8,
        fusion_layers: int = 5,
        dropout_rate: float = 0.4,
    ):
        super().__init__()
        self.modalities = [m for m in MODALITIES if m in widths]
        inner = {m: encoder_width or widths[m] for m in self.modalities}
        self.inputs = nn.ModuleDict(
            {m: nn.Linear(widths[m], inner[m]) if encoder_width else nn.Identity() for m in self.modalities}
        )
        self.encoders = nn.ModuleDict(
            {
                m: nn.ModuleList(
                    nn.TransformerEncoderLayer(
                        inner[m], most_heads(inner[m], num_heads), d_ff, dropout_rate, batch_first=True
                    )
                    for _ in range(encoder_layers)
                )
                for m in self.modalities
            }
        )
        self.outputs = nn.ModuleDict({m: nn.Linear(inner[m], d) for m in self.modalities})
        others = len(self.modalities) - 1
        self.fusion = nn.ModuleList(FusionLayer(d, num_heads, others) for _ in range(fusion_layers if others else 0))
        self.hidden = nn.Linear(len(self.modalities) * d, d)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(d, num_classes)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        padding = ~batch.mask
        leading, *others = (self._encoded(batch, m, padding) for m in self.modalities)
        for layer in self.fusion:
            leading = self.dropout(layer(leading, others, padding))
        hidden = F.relu(self.hidden(torch.cat([leading, *others], dim=2)))
        return ClassifierOutput(self.classifier(self.dropout(hidden)))

    def _encoded(self, batch: Batch, modality: str, padding: Tensor) -> Tensor:
        below = x = self.inputs[modality](inputs(batch, modality))
        for layer in self.encoders[modality]:
            x = layer(x, src_key_padding_mask=padding)
        return self.dropout(self.outputs[modality](self.dropout(x + below)))


def load_parameters(module: M2FNetLike, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.m2fnet_like.M2FNetLike`."""
    for m in module.modalities:
        if isinstance(module.inputs[m], nn.Linear):
            load_linear(module.inputs[m], params[f"input_{m}"])
        for i, layer in enumerate(module.encoders[m]):
            load_encoder_layer(layer, params[f"encoder_{m}_0_{i}"])
        load_linear(module.outputs[m], params[f"output_{m}"])
    for k, layer in enumerate(module.fusion):
        load_linear(layer.linear, params[f"fusion_{k}"])
        for i, attention in enumerate(layer.attention):
            load_attention(attention, params[f"fusion_{k}_attention_{i}"])
    for name in ("hidden", "classifier"):
        load_linear(getattr(module, name), params[name])
