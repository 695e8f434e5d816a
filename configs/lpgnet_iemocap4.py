"""LPGNet on IEMOCAP, four emotions, with its paper's loss weights and otherwise SDT's hyperparameters, since the paper
prints no others.

Paper: the text and audio model with lightweight parallel interaction attention and dual-gated fusion, 2025.
Command: jmer train --config lpgnet_iemocap4 --corpus FOLDER
Expected: accuracy 87.99, weighted F1 87.96 on Session 5 with utterance features, 83.87 and 83.68 with frames;
  emotion2vec and BERT features, which jmer does not ship; apparently single runs.
Variants: of LPGNet: its paper's ablations, such as `without_inter`, `frame` for a corpus with frames, `plain_features`
  and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("lpgnet")
    config.data.path = "synthetic-iemocap4"
    config.data.context = "drop_unlabelled"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 16
    config.training.epochs = 150
    return config
