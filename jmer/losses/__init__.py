"""Losses: pure functions that give a value per utterance, never a mean; `masked_mean` takes one, over devices too."""

from jmer.losses.classification import cross_entropy, focal_loss, published_focal_loss
from jmer.losses.contrastive import cross_modal_contrastive, supervised_contrastive
from jmer.losses.distillation import soft_label_distillation, variational_distillation
from jmer.losses.reduction import masked_mean

__all__ = [
    "cross_entropy",
    "cross_modal_contrastive",
    "focal_loss",
    "masked_mean",
    "published_focal_loss",
    "soft_label_distillation",
    "supervised_contrastive",
    "variational_distillation",
]
