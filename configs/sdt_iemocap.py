"""SDT on IEMOCAP, six emotions, with the hyperparameters that its paper and its authors' code have (Ma et al., 2023).

    python -m jmer.main --config configs/sdt_iemocap.py                            # the built-in synthetic corpus
    python -m jmer.main --config configs/sdt_iemocap.py --config.data.path=FOLDER  # one made by jmer.data.convert

After a colon come variants (`jmer/models/sdt.py`: parts left out, other modalities, and `tiny` for
a quick look), several joined by commas: `--config configs/sdt_iemocap.py:text_audio,without_speakers`.

Printed for IEMOCAP: accuracy 73.95, weighted F1 74.08 (RoBERTa, openSMILE and DenseNet features, which jmer does not
ship; the authors' code reports the epoch that is best on the test split). A network of 80 million parameters.
"""

from jmer.config import base_config, with_variants


def get_config(variants: str = ""):
    """Returns the experiment's configuration."""
    config = base_config("sdt")
    config.data.path = "synthetic-iemocap6"
    config.model.speakers = 2
    config.loss.tau = 1.0
    config.loss.class_weights = "inverse_freq"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 16
    config.training.epochs = 150
    return with_variants(config, variants)
