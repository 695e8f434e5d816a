"""M3NET on MELD, with the hyperparameters of its authors' code; 10.7 million parameters.

The authors' code minimises what it calls a focal loss here (variant `published_focal`); this minimises the
cross-entropy.

Paper: Chen et al., *Multivariate, multi-frequency and multimodal: rethinking graph neural networks for emotion
  recognition in conversation*, CVPR 2023.
Command: jmer train --config m3net_meld --corpus FOLDER
Expected: accuracy 67.32, weighted F1 65.91 on the test split, as others report of the authors' code, of the epoch that
  is best there, with RoBERTa, openSMILE and DenseNet features, which jmer does not ship.
Variants: of M3NET: parts left out, such as `without_gates`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("m3net")
    config.data.path = "synthetic-meld"
    config.model.d_g = 1024
    config.model.gate_layers = 3
    config.model.speakers = 9
    config.model.dropout_rate = 0.4
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 3e-5
    config.training.batch_size = 16
    config.training.epochs = 15
    return config
