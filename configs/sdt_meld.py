"""SDT on MELD, with the hyperparameters of its paper and code (Ma et al., 2023).

    python -m jmer.main --config configs/sdt_meld.py                            # the built-in synthetic corpus
    python -m jmer.main --config configs/sdt_meld.py --config.data.path=FOLDER  # one made by jmer.data.convert

After a colon come variants (`jmer/models/sdt.py`: parts left out, other modalities, and `tiny` for
a quick look), several joined by commas: `--config configs/sdt_meld.py:text_audio,without_speakers`.

Printed for MELD: accuracy 67.55, weighted F1 66.60 (RoBERTa, openSMILE and DenseNet features, which jmer does not
ship; the authors' code reports the epoch that is best on the test split). A network of 69 million parameters.
"""

from jmer.config import base_config, with_variants


def get_config(variants: str = ""):
    """Returns the experiment's configuration."""
    config = base_config("sdt")
    config.data.path = "synthetic-meld"
    config.model.speakers = 9
    config.model.unimodal_gate = "identity"
    config.loss.tau = 8.0
    config.optimizer.learning_rate = 5e-6
    config.optimizer.weight_decay = 1e-5
    config.training.batch_size = 8
    config.training.epochs = 50
    return with_variants(config, variants)
