"""MultiEMO on MELD, text, audio and visual, with its authors' hyperparameters.

Paper: Shi and Huang, *MultiEMO: an attention-based correlation-aware multimodal fusion framework for emotion
    recognition in conversations*, ACL 2023.
Command: jmer train --config multiemo_meld --corpus FOLDER
Expected: weighted F1 66.74 on the test split, with features that jmer does not ship; the authors' code keeps the epoch
    of the best score on the test split.
Variants: of MultiEMO, such as `without_contrast`, `hgr_of_features`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("multiemo")
    config.data.path = "synthetic-meld"
    config.model.bidirectional = False
    config.model.text_context = False
    config.model.num_layers = 2
    config.model.d_h = 512
    config.loss.lambda_correlation = 0.3
    config.loss.lambda_contrast = 0.3
    config.loss.lambda_classification = 0.4
    config.loss.alpha = 1.2
    config.loss.focal_gamma = 2.0
    config.loss.tau = 1.4
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.optimizer.schedule = "plateau"
    config.optimizer.plateau_factor = 0.95
    config.optimizer.plateau_patience = 11
    config.training.batch_size = 100
    config.training.epochs = 15
    return config
