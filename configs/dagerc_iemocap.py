"""DAG-ERC on IEMOCAP, six emotions, text alone, with its authors' hyperparameters (Shen et al., 2021).

    python -m jmer.main --config configs/dagerc_iemocap.py                            # the built-in synthetic corpus
    python -m jmer.main --config configs/dagerc_iemocap.py --config.data.path=FOLDER  # one made by jmer.data.convert

After a colon come variants (`jmer/models/dagerc.py`: other modalities, and `tiny` for a quick
look), several joined by commas: `--config configs/dagerc_iemocap.py:all_modalities,tiny`.

Printed for IEMOCAP: weighted F1 68.03 (fine-tuned RoBERTa features, which jmer does not ship).
"""

from jmer.config import base_config, with_variants


def get_config(variants: str = ""):
    """Returns the experiment's configuration."""
    config = base_config("dagerc")
    config.data.path = "synthetic-iemocap6"
    config.model.dag_layers = 4
    config.model.dropout_rate = 0.2
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.clip_norm = 5.0
    config.training.batch_size = 16
    config.training.epochs = 30
    return with_variants(config, variants)
