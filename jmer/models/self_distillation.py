"""The heads of SDT and LPGNet, for the fusion and for each modality, and their self-distillation loss.

SDT: Ma et al., 2023, arXiv:2310.20494. LPGNet inherits both.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.stacking import stacked, unstacked
from jmer.losses.distillation import soft_label_distillation
from jmer.models.classification import classification_term
from jmer.models.spec import is_off

LOSS_WEIGHTS = ("gamma_task", "gamma_hard", "gamma_soft")
"""Fields of `SelfDistillationLoss` that weigh its terms."""


@struct.dataclass
class SelfDistilledOutput:
    """The output of a model with a fused head and unimodal ones. Mappings are keyed by modality.

    Attributes:
      logits: `[B, T, C]`, of the fused head: the teacher, and the prediction.
      unimodal_logits: `[B, T, C]` each, of the students; empty for a model of one modality.
      features: `[B, T, D]` each, the input of the multimodal gate; zero where the utterance lacks the modality.
      fused: `[B, T, D]`.
      gates: `[B, T, D]` each, the multimodal gate's weight of every feature; empty without that gate.
    """

    logits: jax.Array
    unimodal_logits: Mapping[str, jax.Array]
    features: Mapping[str, jax.Array]
    fused: jax.Array
    gates: Mapping[str, jax.Array]


def gate_means(output: SelfDistilledOutput, batch: Batch) -> dict[str, jax.Array]:
    """Returns each modality's weight in the fusion: the mean of its gate over features, `[B, T]` each."""
    return {m: gate.mean(-1) for m, gate in output.gates.items()}


class SelfDistillationHeads(nn.Module):
    """A linear head on the fused features; on each modality's, Dropout(ReLU(F_m)) W_m + b_m.

    Attributes:
      num_classes: `C`.
      modalities: in the order of the unimodal heads' parameters; with one there is only the fused head.
      dropout_rate: rate, in the unimodal heads.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...]
    dropout_rate: float
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(
        self,
        fused: jax.Array,
        features: Mapping[str, jax.Array],
        *,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the fused logits `[B, T, C]` and each modality's, none if there is only one modality.

        Args:
          fused: `[B, T, D]`.
          features: modality -> `[B, T, D]`.
          train, row_ids: see `ConversationDropout`.
        """
        width = fused.shape[-1]
        logits = dense(self.num_classes, width, name="fused", **SCHEMES[self.initialization])(fused)
        if len(self.modalities) == 1:
            return logits, {}
        stack = jnp.stack([nn.relu(features[m]) for m in self.modalities], axis=1)
        stack = ConversationDropout(self.dropout_rate)(stack, train=train, row_ids=row_ids)
        head = dense(self.num_classes, width, name="unimodal", **SCHEMES[self.initialization])
        return logits, dict(zip(self.modalities, unstacked(stacked(head, in_axes=1)(stack)), strict=True))


@dataclasses.dataclass(frozen=True)
class SelfDistillationLoss:
    """γ1 L_task + γ2 L_CE + γ3 L_KL: the fused head learns the labels, the unimodal ones labels and its prediction.

    A modality's terms are means over the utterances that have it. The defaults are LPGNet's; a term of weight 0 is not
    computed.

    Attributes:
      gamma_task: γ1, weight of the fused head's cross-entropy.
      gamma_hard: γ2, weight of the unimodal heads' cross-entropy ("hard labels").
      gamma_soft: γ3, weight of KL(fused ‖ unimodal) ("soft labels").
      tau: temperature of both distributions in the soft-label term.
      detach_teacher: True = the soft labels do not move the fused head.
      kd_tau_squared: True = the soft-label term is multiplied by τ², which keeps its gradient's size as τ grows.
      class_weights: weight of each emotion in both cross-entropies, `C` numbers; empty = all 1.
    """

    gamma_task: float = 1.5
    gamma_hard: float = 1.0
    gamma_soft: float = 0.3
    tau: float = 1.0
    detach_teacher: bool = False
    kd_tau_squared: bool = False
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        if self.tau <= 0:
            raise ValueError(f"tau must be above 0, not {self.tau}")

    def __call__(self, output: SelfDistilledOutput, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns each term as (weight, sum over this device's utterances, their count); `axis` is not needed.

        Raises:
          ValueError: if there are class weights, but not one for each emotion.
        """
        task = classification_term(output.logits, batch.labels, batch.mask, self.class_weights)
        terms = {"task": (self.gamma_task, *task)}
        for modality, logits in output.unimodal_logits.items():
            present = batch.mask & batch.available[modality]
            if not is_off(self.gamma_hard):
                hard = classification_term(logits, batch.labels, present, self.class_weights)
                terms[f"hard_{modality}"] = (self.gamma_hard, *hard)
            if not is_off(self.gamma_soft):
                divergence = soft_label_distillation(
                    logits,
                    output.logits,
                    temperature=self.tau,
                    stop_teacher_gradient=self.detach_teacher,
                    where=present,
                )
                weight = self.gamma_soft * (self.tau**2 if self.kd_tau_squared else 1)
                terms[f"soft_{modality}"] = (weight, jnp.sum(divergence), jnp.sum(present))
        return terms
