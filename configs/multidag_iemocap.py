"""MultiDAG+CL on IEMOCAP, six emotions, with its authors' hyperparameters.

DAG-ERC over the concatenation of all modalities of the corpus (text, audio and visual in the paper), trained on easy
conversations first; `--config.curriculum.measure=none` trains on all of them from the start.

Paper: Nguyen et al., *Curriculum learning meets directed acyclic graph for multimodal emotion recognition*, 2024.
Command: jmer train --config multidag_iemocap --corpus FOLDER
Expected: accuracy 69.11, weighted F1 69.08 on the test split, of the epoch that is best there, with RoBERTa, openSMILE
  and DenseNet features, which jmer does not ship.
Variants: of DAG-ERC, such as `text_audio`, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("dagerc")
    config.data.path = "synthetic-iemocap6"
    config.model.modalities = ()
    config.model.dag_layers = 4
    config.model.dropout_rate = 0.4
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.clip_norm = 5.0
    config.training.batch_size = 16
    config.training.epochs = 30
    config.curriculum.measure = "shift"
    config.curriculum.buckets = 12
    return config
