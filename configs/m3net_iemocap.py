"""M3NET on IEMOCAP, six emotions, with the hyperparameters of its authors' code; 4.2 million parameters.

Paper: Chen et al., *Multivariate, multi-frequency and multimodal: rethinking graph neural networks for emotion
  recognition in conversation*, CVPR 2023.
Command: jmer train --config m3net_iemocap --corpus FOLDER
Expected: accuracy 69.56, weighted F1 69.52 on the test split, as others report of the authors' code, of the epoch that
  is best there, with RoBERTa, openSMILE and DenseNet features, which jmer does not ship.
Variants: of M3NET: parts left out, such as `without_gates`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("m3net")
    config.data.path = "synthetic-iemocap6"
    config.model.speakers = 2
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 3e-5
    config.training.batch_size = 16
    config.training.epochs = 80
    return config
