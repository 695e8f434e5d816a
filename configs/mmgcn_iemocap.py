"""MMGCN on IEMOCAP, six emotions, with the hyperparameters of its authors' command.

Paper: Hu et al., *MMGCN: Multimodal fusion via deep graph convolution network for emotion recognition in conversation*,
  ACL 2021.
Command: jmer train --config mmgcn_iemocap --corpus FOLDER
Expected: weighted F1 66.22 on the test split, of the epoch that is best there, with text-CNN, openSMILE and DenseNet
  features, which jmer does not ship. The command asks for 4 layers and builds 64: which of them scored is not known.
Variants: of MMGCN, such as `64_layers` and `speaker_on_all`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("mmgcn")
    config.data.path = "synthetic-iemocap6"
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 3e-5
    config.training.batch_size = 16
    config.training.epochs = 20
    return config
