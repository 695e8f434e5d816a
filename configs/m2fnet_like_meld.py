"""A network in the manner of M2FNet on MELD.

Sizes and hyperparameters of the paper are not known: these are a choice (`jmer.models.m2fnet_like` tells what is).

Paper: Chudasama et al., *M2FNet: multi-modal fusion network for emotion recognition in conversation*, CVPR workshops,
  2022.
Command: jmer train --config m2fnet_like_meld --corpus FOLDER
Expected: nothing that could be compared with the paper, whose features come of its own extractors.
Variants: of this network, such as `narrow_encoders`, `cross_attention`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("m2fnet_like")
    config.data.path = "synthetic-meld"
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 1e-4
    config.training.batch_size = 32
    return config
