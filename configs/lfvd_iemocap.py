"""LFVD on IEMOCAP, six emotions, with the hyperparameters that its paper prints (Zhu and Jiang, 2025, section 4.3).

    python -m jmer.main --config configs/lfvd_iemocap.py                            # the built-in synthetic corpus
    python -m jmer.main --config configs/lfvd_iemocap.py --config.data.path=FOLDER  # one made by jmer.data.convert

After a colon come variants (`jmer/models/lfvd.py`: its paper's ablations, and `tiny` for a quick
look), several joined by commas: `--config configs/lfvd_iemocap.py:without_cear,tiny`.

Printed for IEMOCAP: accuracy 72.98, weighted F1 72.75 (mean of five runs; RoBERTa, openSMILE and DenseNet
features, which jmer does not ship).
"""

from jmer.config import base_config, with_variants


def get_config(variants: str = ""):
    """Returns the experiment's configuration."""
    config = base_config("lfvd")
    config.data.path = "synthetic-iemocap6"
    config.model.dag_layers = 4
    config.model.dropout_rate = 0.2
    config.loss.gamma_self = 3.5e-2
    config.loss.gamma_full = 5e-3
    config.loss.gamma_distillation = 3e-3
    config.optimizer.learning_rate = 6.2e-5
    config.optimizer.weight_decay = 7e-3
    config.training.batch_size = 20
    config.training.epochs = 100
    return with_variants(config, variants)
