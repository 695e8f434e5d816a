"""Losses: pure functions that give a value per utterance, never a mean; `masked_mean` takes one, over devices too.

Concordance and preference are properties of whole batches: they give one number.
"""

from jmer.losses.classification import cross_entropy, focal_loss, published_focal_loss
from jmer.losses.concordance import concordance, concordance_loss, concordance_moments
from jmer.losses.contrastive import cross_modal_contrastive, focal_contrastive, supervised_contrastive
from jmer.losses.correlation import soft_hgr
from jmer.losses.distillation import soft_label_distillation, variational_distillation
from jmer.losses.preference import listwise_preference
from jmer.losses.reduction import masked_mean

__all__ = [
    "concordance",
    "concordance_loss",
    "concordance_moments",
    "cross_entropy",
    "cross_modal_contrastive",
    "focal_contrastive",
    "focal_loss",
    "listwise_preference",
    "masked_mean",
    "published_focal_loss",
    "soft_hgr",
    "soft_label_distillation",
    "supervised_contrastive",
    "variational_distillation",
]
