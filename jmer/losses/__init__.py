"""Losses: pure functions that give a value per utterance, never a mean; `masked_mean` takes one, over devices too."""

from jmer.losses.classification import cross_entropy
from jmer.losses.contrastive import cross_modal_contrastive, supervised_contrastive
from jmer.losses.distillation import soft_label_distillation, variational_distillation
from jmer.losses.reduction import masked_mean

__all__ = [
    "cross_entropy",
    "cross_modal_contrastive",
    "masked_mean",
    "soft_label_distillation",
    "supervised_contrastive",
    "variational_distillation",
]
