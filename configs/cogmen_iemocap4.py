"""COGMEN on IEMOCAP, four emotions, with the hyperparameters of its authors' code.

Paper: Joshi et al., *COGMEN: contextualized GNN based multimodal emotion recognition*, NAACL 2022.
Command: jmer train --config cogmen_iemocap4 --corpus FOLDER
Expected: weighted F1 84.5 on the test split, of the epoch that is best on a tenth of the training dialogues, with
  100 audio, 768 sentence-BERT and 512 visual features, which jmer does not ship.
Variants: of COGMEN, such as `narrow_encoder` (for features wider than the published 1380), `same_or_other` and `tiny`.
"""

from ml_collections import ConfigDict

from jmer.config import base_config


def get_config() -> ConfigDict:
    """Returns the experiment's configuration."""
    config = base_config("cogmen")
    config.data.path = "synthetic-iemocap4"
    config.model.speakers = 2
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-8
    config.optimizer.schedule = "plateau"
    config.optimizer.plateau_patience = 11
    config.training.batch_size = 32
    config.training.epochs = 55
    return config
