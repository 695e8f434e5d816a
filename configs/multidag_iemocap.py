"""MultiDAG+CL on IEMOCAP, six emotions, with its authors' hyperparameters (Nguyen et al., 2024).

    python -m jmer.main --config configs/multidag_iemocap.py                            # the built-in synthetic corpus
    python -m jmer.main --config configs/multidag_iemocap.py --config.data.path=FOLDER  # one made by jmer.data.convert

DAG-ERC over the concatenation of all that the corpus has (text, audio and visual in the paper), which trains on easy
conversations first. `--config.training.curriculum=0` leaves the curriculum out. An argument after a colon names a
variant (`jmer/models/dagerc.py`), several joined by commas: `--config configs/multidag_iemocap.py:text_audio`.

Printed for IEMOCAP: accuracy 69.11, weighted F1 69.08 (the epoch is chosen on the test split; RoBERTa, openSMILE and
DenseNet features, which jmer does not ship).
"""

from jmer.config import base_config, with_variants


def get_config(variants: str = ""):
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
    config.training.curriculum = 12
    return with_variants(config, variants)
