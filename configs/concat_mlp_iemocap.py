"""The concat MLP on IEMOCAP, six emotions: each utterance by itself, the floor for models of conversations.

Paper: simplified fusion by concatenation, arXiv:2505.04642; its widths are not known, those here are jmer's.
Command: jmer train --config concat_mlp_iemocap --corpus FOLDER
Expected: nothing that was printed; it is here to be compared with, on the same features.
Variants: of the concat MLP: other modalities, `plain_features` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("concat_mlp")
    config.data.path = "synthetic-iemocap6"
    config.optimizer.learning_rate = 1e-3
    config.training.batch_size = 16
    config.training.epochs = 30
    return config
