"""DialogueGCN on IEMOCAP, six emotions, text alone, with the hyperparameters of the public code.

Paper: Ghosal et al., *DialogueGCN: a graph convolutional neural network for emotion recognition in conversation*,
  EMNLP 2019.
Command: jmer train --config dialoguegcn_iemocap --corpus FOLDER
Expected: weighted F1 64.18 on the test split, of the epoch that is best there, with text-CNN features on GloVe,
  which jmer does not ship.
Variants: of DialogueGCN, such as `original` (its authors' code), `all_modalities`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dialoguegcn")
    config.data.path = "synthetic-iemocap6"
    config.model.modalities = ("text",)
    config.model.speakers = 2
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 3e-4
    config.training.batch_size = 32
    config.training.epochs = 60
    return config
