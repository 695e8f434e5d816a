"""MM-DFN on IEMOCAP, six emotions, with the defaults of its authors' program.

Paper: Hu et al., *MM-DFN: Multimodal dynamic fusion network for emotion recognition in conversations*, ICASSP 2022.
Command: jmer train --config mmdfn_iemocap --corpus FOLDER
Expected: accuracy 68.21, weighted F1 68.18 on the test split, of the best of a grid of settings and epochs there, with
  text-CNN, openSMILE and DenseNet features, which jmer does not ship. Which setting that was is not known.
Variants: of MM-DFN, such as `without_dynamic_fusion` and `32_layers`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("mmdfn")
    config.data.path = "synthetic-iemocap6"
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 1e-4
    config.training.batch_size = 32
    config.training.epochs = 30
    config.training.patience = 5
    return config
