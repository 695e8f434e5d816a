"""DialogueRNN on IEMOCAP, six emotions, text alone, with its authors' hyperparameters.

Paper: Majumder et al., *DialogueRNN: an attentive RNN for emotion detection in conversations*, AAAI 2019.
Command: jmer train --config dialoguernn_iemocap --corpus FOLDER
Expected: weighted F1 62.75 on the test split, as later papers quote it, with features of a CNN on GloVe, which jmer
    does not ship; the authors' code keeps the epoch of the lowest loss on the test split.
Variants: of DialogueRNN, such as `all_modalities`, `listener`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dialoguernn")
    config.data.path = "synthetic-iemocap6"
    config.model.modalities = ("text",)
    config.model.d_g = 500
    config.model.d_p = 500
    config.model.d_e = 300
    config.model.d_h = 300
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 30
    config.training.epochs = 60
    return config
