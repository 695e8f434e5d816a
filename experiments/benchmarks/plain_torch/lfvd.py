"""LFVD (Zhu and Jiang, 2025) in PyTorch, equation by equation and modality by modality.

Its authors publish no code. Where the paper leaves a choice open, this is the default of `jmer.models.lfvd`.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.benchmarks.plain_torch.classification import cross_entropy
from experiments.benchmarks.plain_torch.convert import load_gru, load_linear, load_norm, one_of, set_parameter
from experiments.benchmarks.plain_torch.dagerc import GraphNetwork, load_graph, speaker_graph
from jmer.batch import Batch
from jmer.modalities import MODALITIES

TEMPERATURE = 0.5


class BiGRU(nn.Module):
    """A bidirectional GRU over padded conversations (Eq. 2)."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.gru = nn.GRU(features, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps `x` `[B, T, features]` with bool `mask` `[B, T]` to `[B, T, width]`."""
        # pack_padded_sequence rejects empty sequences; the result of a row of padding is not used.
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class AttentionBlock(nn.Module):
    """Attention and a feed-forward network, each followed by a residual and a LayerNorm (Eqs. 4-6)."""

    def __init__(self, width: int, num_heads: int, dropout_rate: float):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, target: Tensor, source: Tensor, residual: Tensor, source_mask: Tensor) -> Tensor:
        """Attends from `target` to `source`, `[B, T, D]`, where `source_mask` `[B, T]` is True, and adds `residual`."""
        query, key, value = map(self._split, (self.query(target), self.key(source), self.value(source)))
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        # Finite, so that a conversation without the modality gives no NaN; its source is zero.
        attention = torch.softmax(scores.masked_fill(~source_mask[:, None, None], -1e10), dim=3)
        read = (attention @ value).transpose(1, 2).flatten(2)
        x = self.attention_norm(self.dropout(self.output(read)) + residual)
        refined = self.outer(self.dropout(F.relu(self.inner(x))))
        return self.ffn_norm(self.dropout(refined) + x)

    def _split(self, x: Tensor) -> Tensor:
        """From `[B, T, D]` to `[B, heads, T, D / heads]`."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class GaussianHead(nn.Module):
    """The mean and standard deviation of a diagonal Gaussian (Eq. 12)."""

    def __init__(self, width: int, d_z: int):
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, 2 * d_z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps `x` `[B, T, D]` to two of `[B, T, d_z]`."""
        mean, raw = self.output(F.relu(self.hidden(x))).chunk(2, dim=2)
        return mean, F.softplus(raw) + 1e-7


@dataclasses.dataclass
class LFVDOutput:
    """The output of LFVD; mappings are keyed by modality.

    Attributes:
      logits: `[B, T, C]`.
      features: `[B, T, D]` each, zero where the utterance lacks the modality.
      posteriors: mean and standard deviation each, `[B, T, d_z]`.
      weights: `[B, T]` of audio and visual, w of Eq. 16; 0 where unavailable.
    """

    logits: Tensor
    features: dict[str, Tensor]
    posteriors: dict[str, tuple[Tensor, Tensor]]
    weights: dict[str, Tensor]


class LFVD(nn.Module):
    """The network of `jmer.models.lfvd.LFVD` on text, audio and visual, with its default options.

    Args:
      widths: modality -> width of its features.
      num_classes, d_r, d_h, d_x, d_z, dag_layers, num_heads, dropout_rate: see `jmer.models.lfvd.LFVD`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_r: int = 300,
        d_h: int = 300,
        d_x: int = 300,
        d_z: int = 64,
        dag_layers: int = 2,
        num_heads: int = 6,
        dropout_rate: float = 0.1,
    ):
        super().__init__()

        def for_each_modality(make):
            return nn.ModuleDict({m: make(m) for m in MODALITIES})

        self.grus = for_each_modality(lambda m: BiGRU(widths[m], d_r))
        self.graphs = for_each_modality(lambda m: GraphNetwork(d_r, d_h, dag_layers, d_x))
        self.language_guided = for_each_modality(lambda m: AttentionBlock(d_x, num_heads, dropout_rate))
        self.token = nn.Parameter(0.02 * torch.randn(d_x))
        self.atmosphere = AttentionBlock(d_x, num_heads, dropout_rate)
        self.posteriors = for_each_modality(lambda m: GaussianHead(d_x, d_z))
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(d_x, num_classes)

    def forward(self, batch: Batch) -> LFVDOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        available = {m: where.unsqueeze(2) for m, where in batch.available.items()}
        graph = speaker_graph(batch.speakers, batch.mask)
        encoded = {}
        for m in MODALITIES:
            hidden = self.grus[m](batch.features[m].masked_fill(~available[m], 0), batch.mask)
            encoded[m] = self.graphs[m](self.dropout(hidden), *graph)
        atmosphere = self._atmosphere({m: x.masked_fill(~available[m], 0) for m, x in encoded.items()}, batch)
        features = {m: (x + atmosphere).masked_fill(~available[m], 0) for m, x in encoded.items()}
        posteriors = {m: self.posteriors[m](x) for m, x in features.items()}
        weights = {m: fusion_weights(posteriors, m, batch.available) for m in MODALITIES if m != "text"}
        fused = features["text"] + sum(weight.unsqueeze(2) * features[m] for m, weight in weights.items())
        return LFVDOutput(self.classifier(self.dropout(fused)), features, posteriors, weights)

    def _atmosphere(self, x: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Eqs. 4-9: the language-focused transformer, and the token that attends to its result, `[B, 1, D]`."""
        merged = x["text"]
        for m in MODALITIES:
            block = self.language_guided[m](x["text"], x[m], x[m], batch.available[m])
            merged = merged + block.masked_fill(~batch.available[m].unsqueeze(2), 0)
        token = self.token.expand(len(merged), 1, -1)
        rows = torch.cat([token, merged], dim=1)
        return self.atmosphere(rows, rows, rows, F.pad(batch.mask, (1, 0), value=True))[:, :1]


def fusion_weights(
    posteriors: Mapping[str, tuple[Tensor, Tensor]], modality: str, available: Mapping[str, Tensor]
) -> Tensor:
    """Returns a modality's weight, `[B, T]`: the sigmoid of its symmetric divergence from the text (Eqs. 14-16)."""
    text, other = posteriors["text"], posteriors[modality]
    weight = torch.sigmoid((gaussian_kl(text, other) + gaussian_kl(other, text)) / 2)
    # Without text there is no reference.
    return weight.masked_fill(~available["text"], 1).masked_fill(~available[modality], 0)


def gaussian_kl(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    """Returns KL(p || q) of diagonal Gaussians, mean and standard deviation each `[..., D]`: `[...]` (Eq. 12)."""
    (mean_p, scale_p), (mean_q, scale_q) = p, q
    ratio = (scale_p / scale_q).square()
    return 0.5 * (ratio - ratio.log() - 1 + ((mean_p - mean_q) / scale_q).square()).sum(-1)


@dataclasses.dataclass(frozen=True)
class LFVDLoss:
    """Eq. 21, with the weights of `jmer.models.lfvd.LFVDLoss` and the defaults of its other fields."""

    gamma_self: float = 3.5e-2
    gamma_full: float = 5e-3
    gamma_distillation: float = 3e-3

    def __call__(self, output: LFVDOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total, and its unweighted terms by name (Eqs. 10, 11, 13, 19)."""
        terms = {
            "classification": cross_entropy(output.logits, batch.labels),
            "self": self_supervised_contrast(output.features, batch),
            "full": supervised_contrast(output.features, batch),
            "distillation": distillation(output.posteriors, batch),
        }
        contrast = self.gamma_self * terms["self"] + self.gamma_full * terms["full"]
        return terms["classification"] + contrast + self.gamma_distillation * terms["distillation"], terms


def self_supervised_contrast(features: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Returns the cross-modal contrastive loss over all pairs of modalities, averaged over utterances (Eq. 10)."""
    unit = {m: F.normalize(x[batch.mask], dim=1) for m, x in features.items()}
    available = {m: where[batch.mask] for m, where in batch.available.items()}
    total = 0.0
    for m, other in itertools.permutations(MODALITIES, 2):
        logits = unit[m] @ unit[other].T / TEMPERATURE
        both = available[m] & available[other]
        negatives = both & ~torch.eye(len(both), dtype=torch.bool, device=both.device)
        values = masked_logsumexp(logits, negatives) - logits.diagonal()
        total = total + values.masked_fill(~(both & negatives.any(1)), 0).sum()
    return total / batch.mask.sum()


def supervised_contrast(features: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Returns the supervised contrastive loss within each modality, averaged over labelled utterances (Eq. 11)."""
    labelled = batch.mask & (batch.labels >= 0)
    labels = batch.labels[labelled]
    same_emotion = labels.unsqueeze(1) == labels
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    total = 0.0
    for m, x in features.items():
        unit, available = F.normalize(x[labelled], dim=1), batch.available[m][labelled]
        logits = unit @ unit.T / TEMPERATURE
        positives, negatives = available & same_emotion & others, available & ~same_emotion
        attraction = (logits * positives).sum(1) / positives.sum(1).clamp(min=1)
        counts = available & positives.any(1) & negatives.any(1)
        total = total + (masked_logsumexp(logits, negatives) - attraction).masked_fill(~counts, 0).sum()
    return total / labelled.sum()


def masked_logsumexp(logits: Tensor, where: Tensor) -> Tensor:
    """Returns the logsumexp over the last axis where True, and a finite value where nothing is."""
    return logits.masked_fill(~where, -1e9).logsumexp(-1)


def distillation(posteriors: Mapping[str, tuple[Tensor, Tensor]], batch: Batch) -> Tensor:
    """Returns the divergences from the text and from the standard normal, averaged over all utterances (Eq. 13)."""
    total = 0.0
    for m, (mean, scale) in posteriors.items():
        prior = torch.zeros_like(mean), torch.ones_like(scale)
        total = total + (gaussian_kl((mean, scale), prior) * batch.available[m]).sum()
        if m != "text":
            both = batch.available[m] & batch.available["text"]
            total = total + (gaussian_kl((mean, scale), posteriors["text"]) * both).sum()
    return total / batch.mask.sum()


def load_parameters(module: LFVD, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.lfvd.LFVD`, whose arrays have the modalities as leading axes."""
    for i, m in enumerate(MODALITIES):
        graph, block, head = (one_of(params[part], i) for part in ("graph", "language_guided", "posterior"))
        load_gru(module.grus[m].gru, params["gru"], f"{m}_forward", "_l0")
        load_gru(module.grus[m].gru, params["gru"], f"{m}_backward", "_l0_reverse")
        load_graph(module.graphs[m], graph)
        _load_block(module.language_guided[m], block)
        load_linear(module.posteriors[m].hidden, head["hidden"])
        load_linear(module.posteriors[m].output, head["output"])
    set_parameter(module.token, params["atmosphere"]["token"])
    _load_block(module.atmosphere, params["atmosphere"]["block"])
    load_linear(module.classifier, params["classifier"])


def _load_block(block: AttentionBlock, params: Mapping[str, Any]) -> None:
    load_linear(block.query, params["query_projection"])
    load_linear(block.key, params["key_projection"])
    load_linear(block.value, params["value_projection"])
    load_linear(block.output, params["attention_output"])
    load_linear(block.inner, params["ffn_inner"])
    load_linear(block.outer, params["ffn_output"])
    load_norm(block.attention_norm, params["attention_norm"])
    load_norm(block.ffn_norm, params["ffn_norm"])
