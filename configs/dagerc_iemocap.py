"""DAG-ERC on IEMOCAP, six emotions, text alone, with its authors' hyperparameters.

Paper: Shen et al., *Directed acyclic graph network for conversational emotion recognition*, ACL 2021.
Command: jmer train --config dagerc_iemocap --corpus FOLDER
Expected: weighted F1 68.03 on the test split, with fine-tuned RoBERTa features, which jmer does not ship.
Variants: of DAG-ERC, such as `all_modalities`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dagerc")
    config.data.path = "synthetic-iemocap6"
    config.model.dag_layers = 4
    config.model.dropout_rate = 0.2
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.clip_norm = 5.0
    config.training.batch_size = 16
    config.training.epochs = 30
    return config
