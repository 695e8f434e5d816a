"""DialogueRNN on MELD, text and audio, with its authors' hyperparameters.

Paper: Majumder et al., *DialogueRNN: an attentive RNN for emotion detection in conversations*, AAAI 2019.
Command: jmer train --config dialoguernn_meld --corpus FOLDER
Expected: weighted F1 57.03 on the test split, as later papers quote it, with features that jmer does not ship; the
    authors' code keeps the epoch of the best score on the test split.
Variants: of DialogueRNN, such as `all_modalities`, `listener`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dialoguernn")
    config.data.path = "synthetic-meld"
    config.model.modalities = ("text", "audio")
    config.model.speakers = 9
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 30
    config.training.epochs = 100
    return config
