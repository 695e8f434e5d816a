"""SDT on MELD, with the hyperparameters of its paper and its authors' code; 69 million parameters.

Paper: Ma et al., *A transformer-based model with self-distillation for multimodal emotion recognition in
  conversations*, 2023.
Command: jmer train --config sdt_meld --corpus FOLDER
Expected: accuracy 67.55, weighted F1 66.60 on the test split, of the epoch that is best there, with RoBERTa, openSMILE
  and DenseNet features, which jmer does not ship.
Variants: of SDT: parts left out, such as `without_speakers`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("sdt")
    config.data.path = "synthetic-meld"
    config.model.speakers = 9
    config.model.unimodal_gate = "identity"
    config.loss.tau = 8.0
    config.optimizer.learning_rate = 5e-6
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 8
    config.training.epochs = 50
    return config
