"""GraphSmile on IEMOCAP, six emotions, with the hyperparameters of its authors' code; 12.8 million parameters.

Paper: Li et al., *Tracing intricate cues in dialogue: joint graph structure and sentiment dynamics for multimodal
  emotion recognition*, 2025.
Command: jmer train --config graphsmile_iemocap --corpus FOLDER
Expected: accuracy 70.98, weighted F1 71.00 on the test split, as others report of the authors' code, of the epoch that
  is best there, with RoBERTa, openSMILE and DenseNet features, which jmer does not ship.
Variants: of GraphSmile: parts left out, such as `without_shift`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("graphsmile")
    config.data.path = "synthetic-iemocap6"
    config.model.d_h = 512
    config.model.window_past = 17
    config.model.window_future = 17
    config.model.pair_layers = (7, 7, 7)
    config.model.shift_window = 19
    config.loss.lambda_sentiment = 1.0
    config.loss.lambda_shift = 0.7
    config.optimizer.name = "adamw"
    config.optimizer.amsgrad = True
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-4
    config.training.batch_size = 16
    config.training.epochs = 120
    return config
