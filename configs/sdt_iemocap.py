"""SDT on IEMOCAP, six emotions, with the hyperparameters of its paper and its authors' code; 80 million parameters.

Paper: Ma et al., *A transformer-based model with self-distillation for multimodal emotion recognition in
  conversations*, 2023.
Command: jmer train --config sdt_iemocap --corpus FOLDER
Expected: accuracy 73.95, weighted F1 74.08 on the test split, of the epoch that is best there, with RoBERTa, openSMILE
  and DenseNet features, which jmer does not ship.
Variants: of SDT: parts left out, such as `without_speakers`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("sdt")
    config.data.path = "synthetic-iemocap6"
    config.model.speakers = 2
    config.loss.tau = 1.0
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 16
    config.training.epochs = 150
    return config
