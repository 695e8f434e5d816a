"""DAG-ERC on MELD, text alone, with its authors' hyperparameters (Shen et al., 2021).

    python -m jmer.main --config configs/dagerc_meld.py                            # the built-in synthetic corpus
    python -m jmer.main --config configs/dagerc_meld.py --config.data.path=FOLDER  # one made by jmer.data.convert

After a colon come variants (`jmer/models/dagerc.py`: other modalities, and `tiny` for a quick
look), several joined by commas: `--config configs/dagerc_meld.py:all_modalities,tiny`.

Printed for MELD: weighted F1 63.65 (fine-tuned RoBERTa features, which jmer does not ship).
"""

from jmer.config import base_config, with_variants


def get_config(variants: str = ""):
    """Returns the experiment's configuration."""
    config = base_config("dagerc")
    config.data.path = "synthetic-meld"
    config.model.dag_layers = 2
    config.model.dropout_rate = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.clip_norm = 5.0
    config.training.batch_size = 64
    config.training.epochs = 70
    return with_variants(config, variants)
