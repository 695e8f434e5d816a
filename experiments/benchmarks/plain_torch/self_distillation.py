"""The parts that SDT and LPGNet share in PyTorch: attention weights, feed-forward networks, gates, heads, loss."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.convert import load_linear, load_norm, one_of
from jmer.batch import Batch

Path = tuple[str, str]
"""The paths of attention: (source, target)."""

_FAR_BELOW = -1e10


@dataclasses.dataclass
class Output:
    """The output of a model.

    Attributes:
      logits: `[B, T, C]`, of the fused head: the teacher, and the prediction.
      unimodal_logits: modality -> `[B, T, C]`, of the students.
    """

    logits: Tensor
    unimodal_logits: dict[str, Tensor]


def path_name(path: Path) -> str:
    """Returns the key of a path in a `ModuleDict`."""
    return "_to_".join(path)


def attention_weights(query: Tensor, key: Tensor, key_mask: Tensor) -> Tensor:
    """Returns softmax over keys of the scaled products, zero on masked keys.

    Args:
      query: `[..., Tq, D]`.
      key: `[..., Tk, D]`.
      key_mask: bool `[..., 1, Tk]`, True where a key is real.

    Returns:
      `[..., Tq, Tk]`, all zero where there is no real key.
    """
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    return scores.masked_fill(~key_mask, _FAR_BELOW).softmax(-1).masked_fill(~key_mask, 0)


class FeedForward(nn.Module):
    """The position-wise network with its residual: x + Dropout(Dropout(GELU(LN(x) W_1 + b_1)) W_2 + b_2)."""

    def __init__(self, d: int, inner: int, dropout_rate: float):
        super().__init__()
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.inner = nn.Linear(d, inner)
        self.outer = nn.Linear(inner, d)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(F.gelu(self.inner(self.norm(x)), approximate="tanh"))
        return x + self.dropout(self.outer(inner))


class UnimodalGate(nn.Module):
    """x ⊙ σ(x W); without a learnt W it is the identity, as SDT freezes it on MELD (as a matrix product)."""

    def __init__(self, d: int, learned: bool):
        super().__init__()
        self.linear = nn.Linear(d, d, bias=False) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.linear(x))


class GatedReduction(nn.Module):
    """Gates the result of each path, and reduces the paths of each target modality to one vector."""

    def __init__(self, paths: Sequence[Path], d: int, learned_gates: bool = True):
        super().__init__()
        targets = [target for _, target in paths]
        self.gates = nn.ModuleDict({path_name(path): UnimodalGate(d, learned_gates) for path in paths})
        self.reductions = nn.ModuleDict({m: nn.Linear(targets.count(m) * d, d) for m in dict.fromkeys(targets)})

    def forward(self, contexts: Mapping[Path, Tensor]) -> dict[str, Tensor]:
        """Reduces (source, target) -> `[B, T, D]`, in the order of `paths`, to target -> `[B, T, D]`."""
        gated = {path: self.gates[path_name(path)](x) for path, x in contexts.items()}
        reduced = {}
        for modality, reduction in self.reductions.items():
            ending_here = [x for (_, target), x in gated.items() if target == modality]
            reduced[modality] = reduction(torch.cat(ending_here, dim=-1))
        return reduced


class MultimodalGate(nn.Module):
    """Fuses the available modalities of an utterance: Σ_m softmax_m(x_m W) ⊙ x_m; zero where none is available."""

    def __init__(self, d: int):
        super().__init__()
        self.linear = nn.Linear(d, d, bias=False)

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        x = torch.stack([features[m] for m in features])
        absent = ~torch.stack([present[m] for m in features])[..., None]
        weights = self.linear(x).masked_fill(absent, _FAR_BELOW).softmax(0).masked_fill(absent, 0)
        return (weights * x).sum(0)


class Heads(nn.Module):
    """A linear head on the fused features; on each modality's, Dropout(ReLU(F_m)) W_m + b_m."""

    def __init__(self, modalities: Sequence[str], num_classes: int, d: int, dropout_rate: float):
        super().__init__()
        self.fused = nn.Linear(d, num_classes)
        self.unimodal = nn.ModuleDict(
            {m: nn.Sequential(nn.ReLU(), nn.Dropout(dropout_rate), nn.Linear(d, num_classes)) for m in modalities}
        )

    def forward(self, fused: Tensor, features: Mapping[str, Tensor]) -> Output:
        return Output(self.fused(fused), {m: head(features[m]) for m, head in self.unimodal.items()})


class SelfDistillationLoss(nn.Module):
    """γ1 L_task + γ2 L_CE + γ3 L_KL: labels for the fused head; labels and its prediction for the others.

    Args:
      num_classes: `C`.
      gamma_task: γ1, weight of the fused head's cross-entropy.
      gamma_hard: γ2, weight of each unimodal head's cross-entropy.
      gamma_soft: γ3, weight of KL(fused ‖ unimodal) for each unimodal head; it moves both.
      tau: temperature of both distributions in the latter.
      class_weights: weight of each emotion in the cross-entropies; empty = all 1.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        gamma_task: float,
        gamma_hard: float,
        gamma_soft: float,
        tau: float = 1.0,
        class_weights: Sequence[float] = (),
    ):
        super().__init__()
        self.gammas = {"task": gamma_task, "hard": gamma_hard, "soft": gamma_soft}
        self.tau = tau
        self.register_buffer("class_weights", torch.tensor(class_weights or [1.0] * num_classes), persistent=False)

    def forward(self, output: Output, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total, and the mean of each term over its utterances; 0 if it has none."""
        terms = {"task": self._cross_entropy(output.logits, batch.labels, batch.mask)}
        for modality, logits in output.unimodal_logits.items():
            present = batch.mask & batch.available[modality]
            terms[f"hard_{modality}"] = self._cross_entropy(logits, batch.labels, present)
            terms[f"soft_{modality}"] = self._divergence(logits, output.logits, present)
        return sum(self.gammas[name.split("_")[0]] * value for name, value in terms.items()), terms

    def _cross_entropy(self, logits: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        targets = labels.clamp(min=0).long()
        values = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        return _mean(values, self.class_weights[targets] * (where & (labels >= 0)))

    def _divergence(self, student: Tensor, teacher: Tensor, where: Tensor) -> Tensor:
        student, teacher = (F.log_softmax(logits / self.tau, dim=-1) for logits in (student, teacher))
        return _mean(F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1), where.to(student.dtype))


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    count = weights.sum()
    return (weights * values).sum() / torch.where(count > 0, count, 1)


def load_feed_forward(layer: FeedForward, params: Mapping[str, Any]) -> None:
    """Copies the parameters of `jmer.layers.PositionwiseFeedForward`."""
    load_norm(layer.norm, params["norm"])
    load_linear(layer.inner, params["inner"])
    load_linear(layer.outer, params["outer"])


def load_reduction(layer: GatedReduction, params: Mapping[str, Any]) -> None:
    """Copies the parameters of `jmer.layers.GatedReduction`."""
    if "unimodal" in params:
        for i, gate in enumerate(layer.gates.values()):
            load_linear(gate.linear, one_of(params["unimodal"]["gate"], i))
    for i, reduction in enumerate(layer.reductions.values()):
        load_linear(reduction, one_of(params["reduction"], i))


def load_heads(layer: Heads, params: Mapping[str, Any]) -> None:
    """Copies the parameters of `jmer.models.self_distillation.SelfDistillationHeads`."""
    load_linear(layer.fused, params["fused"])
    for i, head in enumerate(layer.unimodal.values()):
        load_linear(head[-1], one_of(params["unimodal"], i))
