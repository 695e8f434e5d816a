"""DAG-ERC on MELD, text alone, with its authors' hyperparameters.

Paper: Shen et al., *Directed acyclic graph network for conversational emotion recognition*, ACL 2021.
Command: jmer train --config dagerc_meld --corpus FOLDER
Expected: weighted F1 63.65 on the test split, with fine-tuned RoBERTa features, which jmer does not ship.
Variants: of DAG-ERC, such as `all_modalities`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dagerc")
    config.data.path = "synthetic-meld"
    config.model.dag_layers = 2
    config.model.dropout_rate = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.clip_norm = 5.0
    config.training.batch_size = 64
    config.training.epochs = 70
    return config
