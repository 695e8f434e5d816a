"""MMGCN on MELD, with the hyperparameters of its authors' command and the cross-entropy in place of its own loss.

Paper: Hu et al., *MMGCN: Multimodal fusion via deep graph convolution network for emotion recognition in conversation*,
  ACL 2021.
Command: jmer train --config mmgcn_meld --corpus FOLDER
Expected: weighted F1 58.65 on the test split, of the epoch that is best there, trained on the development split too,
  with text-CNN, openSMILE and DenseNet features, which jmer does not ship. Fear and disgust are hardly ever found.
Variants: of MMGCN, such as `published_focal` and `64_layers`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("mmgcn")
    config.data.path = "synthetic-meld"
    config.model.speakers = 9
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.0
    config.training.batch_size = 16
    config.training.epochs = 60
    return config
