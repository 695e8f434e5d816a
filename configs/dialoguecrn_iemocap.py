"""DialogueCRN on IEMOCAP, six emotions, text alone, with its authors' hyperparameters for RoBERTa features.

With their GloVe features (100 wide) it has `model.d_h` 100 and `model.speaker_steps` 4.

Paper: Hu et al., *DialogueCRN: contextual reasoning networks for emotion recognition in conversations*, ACL 2021.
Command: jmer train --config dialoguecrn_iemocap --corpus FOLDER
Expected: no printed score could be checked. Its authors chose the epoch on a tenth of the training conversations, with
  GloVe features on the test split; neither features are shipped.
Variants: of DialogueCRN, such as `all_modalities`, `without_reasoning`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dialoguecrn")
    config.data.path = "synthetic-iemocap6"
    config.model.d_h = 128
    config.model.num_layers = 2
    config.model.situation_steps = 3
    config.model.speaker_steps = 0
    config.loss.focal_gamma = 0.0
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 2e-4
    config.training.batch_size = 32
    config.training.epochs = 100
    config.training.patience = 20
    return config
