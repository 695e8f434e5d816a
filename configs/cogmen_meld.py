"""COGMEN on MELD, which its authors' code does not read, with the hyperparameters of IEMOCAP.

Paper: Joshi et al., *COGMEN: contextualized GNN based multimodal emotion recognition*, NAACL 2022.
Command: jmer train --config cogmen_meld --corpus FOLDER
Expected: weighted F1 58.66 on the test split, as another paper prints its own run, with features that jmer does not
  ship.
Variants: of COGMEN, such as `narrow_encoder` (for features wider than the published 1380), `same_or_other` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("cogmen")
    config.data.path = "synthetic-meld"
    config.model.speakers = 9
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-8
    config.optimizer.schedule = "plateau"
    config.optimizer.plateau_patience = 11
    config.training.batch_size = 32
    config.training.epochs = 55
    return config
