"""LPGNet on IEMOCAP, six emotions, with its paper's loss weights and otherwise SDT's hyperparameters, since the paper
prints no others.

Paper: the text and audio model with lightweight parallel interaction attention and dual-gated fusion, 2025.
Command: jmer train --config lpgnet_iemocap6 --corpus FOLDER
Expected: accuracy 71.78 on Session 5, and a weighted F1 of 72.00 by the F1s that the paper prints for the emotions;
  emotion2vec and BERT features, which jmer does not ship.
Variants: of LPGNet: its paper's ablations, such as `without_inter`, `frame` for a corpus with frames, `plain_features`
  and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("lpgnet")
    config.data.path = "synthetic-iemocap6"
    config.data.context = "drop_unlabelled"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 16
    config.training.epochs = 150
    return config
