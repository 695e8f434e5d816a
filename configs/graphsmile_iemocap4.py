"""GraphSmile on IEMOCAP, four emotions, with the hyperparameters of its authors' code; 2.4 million parameters.

Paper: Li et al., *Tracing intricate cues in dialogue: joint graph structure and sentiment dynamics for multimodal
  emotion recognition*, 2025.
Command: jmer train --config graphsmile_iemocap4 --corpus FOLDER
Expected: nothing that jmer could check; the authors choose the epoch on the test split, with RoBERTa, openSMILE and
  DenseNet features, which jmer does not ship.
Variants: of GraphSmile: parts left out, such as `without_shift`, other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("graphsmile")
    config.data.path = "synthetic-iemocap4"
    config.model.d_h = 256
    config.model.window_past = 5
    config.model.window_future = 5
    config.model.pair_layers = (4, 4, 4)
    config.model.shift_window = 10
    config.loss.lambda_sentiment = 0.6
    config.loss.lambda_shift = 0.6
    config.optimizer.name = "adamw"
    config.optimizer.amsgrad = True
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 1e-4
    config.training.batch_size = 16
    config.training.epochs = 120
    return config
