"""DialogueGCN on MELD, all modalities, with the hyperparameters of IEMOCAP, since none for MELD are public.

Paper: Ghosal et al., *DialogueGCN: a graph convolutional neural network for emotion recognition in conversation*,
  EMNLP 2019.
Command: jmer train --config dialoguegcn_meld --corpus FOLDER
Expected: accuracy 58.62, weighted F1 56.36 on the test split, as later papers print it for three modalities, with
  features (text-CNN, openSMILE, DenseNet) that jmer does not ship.
Variants: of DialogueGCN, such as `text`, `original` (its authors' code), `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dialoguegcn")
    config.data.path = "synthetic-meld"
    config.model.speakers = 9
    config.optimizer.learning_rate = 3e-4
    config.training.batch_size = 32
    config.training.epochs = 60
    return config
