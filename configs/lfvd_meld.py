"""LFVD on MELD, with the hyperparameters of its paper (section 4.3).

Paper: Zhu and Jiang, *Towards robust multimodal emotion recognition in conversation with multi-modal transformer and
  variational distillation fusion*, 2025.
Command: jmer train --config lfvd_meld --corpus FOLDER
Expected: accuracy 68.32, weighted F1 67.03 on the test split, mean of five runs, with RoBERTa, openSMILE and DenseNet
  features, which jmer does not ship.
Variants: of LFVD: its paper's ablations, such as `without_cear`, besides `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("lfvd")
    config.data.path = "synthetic-meld"
    config.model.dag_layers = 2
    config.model.dropout_rate = 0.1
    config.loss.gamma_self = 1.35e-3
    config.loss.gamma_full = 5e-3
    config.loss.gamma_distillation = 3e-3
    config.optimizer.learning_rate = 2.5e-4
    config.optimizer.weight_decay = 7e-3
    config.training.batch_size = 32
    config.training.epochs = 80
    return config
