"""LPGNet on IEMOCAP, six emotions, with the loss weights of its paper (2025) and, since it prints no others, SDT's
hyperparameters.

    python -m jmer.main --config configs/lpgnet_iemocap6.py                            # the built-in synthetic corpus
    python -m jmer.main --config configs/lpgnet_iemocap6.py --config.data.path=FOLDER  # one made by jmer.data.convert

After a colon come variants (`jmer/models/lpgnet.py`: its paper's ablations, `frame` for a corpus
with frames, `tiny` for a quick look), several joined by commas: `--config configs/lpgnet_iemocap6.py:without_inter`.

Printed for the six-class IEMOCAP, test on Session 5: accuracy 71.78; the F1s that it prints for the emotions give a
weighted F1 of 72.00 (emotion2vec and BERT features, which jmer does not ship).
"""

from jmer.config import base_config, with_variants


def get_config(variants: str = ""):
    """Returns the experiment's configuration."""
    config = base_config("lpgnet")
    config.data.path = "synthetic-iemocap6"
    config.data.context = "drop_unlabelled"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 16
    config.training.epochs = 150
    return with_variants(config, variants)
