"""DialogueCRN on MELD, text alone, with its authors' hyperparameters for RoBERTa features.

With their GloVe features (600 wide) it has `model.d_h` 100, `model.situation_steps` 2, `model.speaker_steps` 0,
`loss.class_weights` `inverse_freq` and `optimizer.learning_rate` 5e-4.

Paper: Hu et al., *DialogueCRN: contextual reasoning networks for emotion recognition in conversations*, ACL 2021.
Command: jmer train --config dialoguecrn_meld --corpus FOLDER
Expected: accuracy 60.73 on the test split, as printed by a page about the paper, which does not say of which features.
  Its authors chose the epoch on the validation split; jmer does not ship their features.
Variants: of DialogueCRN, such as `all_modalities`, `without_reasoning`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dialoguecrn")
    config.data.path = "synthetic-meld"
    config.model.d_h = 128
    config.model.num_layers = 1
    config.model.situation_steps = 0
    config.model.speaker_steps = 1
    config.loss.focal_gamma = 1.0
    config.loss.class_weights = "log_inverse_freq"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 2e-4
    config.training.batch_size = 32
    config.training.epochs = 100
    config.training.patience = 20
    return config
