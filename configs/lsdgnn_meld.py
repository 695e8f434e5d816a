"""LSDGNN on MELD with its authors' hyperparameters.

Two graph networks over text, audio and visual features side by side, trained on easy conversations first;
`--config.curriculum.measure=none` trains on all conversations from the start.

Paper: *LSDGNN: long-short distance graph neural network with improved curriculum learning*, ECAI 2025.
Command: jmer train --config lsdgnn_meld --corpus FOLDER
Expected: no printed score could be checked. Its authors' code reports the epoch that is best on the test split, with
  features 1666 wide, all modalities together, which jmer does not ship.
Variants: of LSDGNN, such as `utterance_difference`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("lsdgnn")
    config.data.path = "synthetic-meld"
    config.model.dag_layers = 2
    config.model.dropout_rate = 0.1
    config.loss.beta = 0.2
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.epsilon = 1e-6
    config.optimizer.clip_norm = 5.0
    config.training.batch_size = 64
    config.training.epochs = 30
    config.curriculum.measure = "weighted_shift"
    config.curriculum.buckets = 12
    return config
