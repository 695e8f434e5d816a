"""MM-DFN on MELD, with one setting of its authors' grid.

Paper: Hu et al., *MM-DFN: Multimodal dynamic fusion network for emotion recognition in conversations*, ICASSP 2022.
Command: jmer train --config mmdfn_meld --corpus FOLDER
Expected: accuracy 62.49, weighted F1 59.46 on the test split, of the best of a grid of settings and epochs there,
  trained on the development split too, with text-CNN, openSMILE and DenseNet features, which jmer does not ship. Fear
  and disgust are hardly ever found.
Variants: of MM-DFN, such as `without_dynamic_fusion` and `32_layers`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("mmdfn")
    config.data.path = "synthetic-meld"
    config.model.party_weights = (1.5, 0.5, 0.5)
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 1e-4
    config.training.batch_size = 32
    config.training.epochs = 30
    config.training.patience = 5
    return config
