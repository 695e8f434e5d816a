"""Variants of an experiment that differ from it by a few values: the papers' ablations, and a small one for tests."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jmer.errors import UserError

TINY = {
    "model.d_r": 16,
    "model.d_h": 16,
    "model.d_x": 16,
    "model.d_z": 4,
    "model.heads": 2,
    "training.epochs": 2,
}
"""A network that trains in seconds; its scores mean nothing."""

PLAIN_FEATURES = {
    "model.d_r": 128,
    "model.d_h": 128,
    "model.d_x": 128,
    "model.heads": 4,
    "model.dropout": 0.4,
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 1e-4,
    "training.batch_size": 8,
    "training.epochs": 25,
}
"""For sentence embeddings and acoustic statistics that were not fine-tuned for emotion: the papers' learning rates,
meant for features that all but tell the emotion, would need many times the epochs."""

MODALITY_SUBSETS = {
    "text": {"model.modalities": ("text",)},
    "audio": {"model.modalities": ("audio",)},
    "visual": {"model.modalities": ("visual",)},
    "text_visual": {"model.modalities": ("text", "visual")},
    "text_audio": {"model.modalities": ("text", "audio")},
    "audio_visual": {"model.modalities": ("audio", "visual")},
}

LFVD: Mapping[str, Mapping[str, Any]] = {
    "tiny": TINY,
    "plain_features": PLAIN_FEATURES,
    # Table 4.
    **MODALITY_SUBSETS,
    # Table 5: components.
    "without_lfa_transformer": {
        "model.use_atmosphere": False,
        "model.language_stream": "encoder",
        "loss.gamma_self": 0.0,
        "loss.gamma_full": 0.0,
    },
    "without_cear": {"model.use_atmosphere": False},
    "without_dl": {"loss.gamma_self": 0.0, "loss.gamma_full": 0.0},
    "without_cmvd": {"loss.gamma_distillation": 0.0, "model.weight_fn": "ones"},
    "without_cmvd_fusion": {"model.weight_fn": "ones"},
    "without_cmvd_distillation": {"loss.gamma_distillation": 0.0},
    "dominant_audio": {"model.dominant": "audio"},
    "dominant_visual": {"model.dominant": "visual"},
    # Table 6: loss terms.
    "without_self": {"loss.gamma_self": 0.0},
    "without_full": {"loss.gamma_full": 0.0},
    "without_distillation": {"loss.gamma_distillation": 0.0},
    "without_all": {"loss.gamma_self": 0.0, "loss.gamma_full": 0.0, "loss.gamma_distillation": 0.0},
    # Fig. 2: fusion strategies.
    "fusion_add": {"model.fusion": "add"},
    "fusion_cat": {"model.fusion": "cat"},
    "fusion_gate": {"model.fusion": "gate"},
}
"""Variants of LFVD, under the names of its paper's Tables 4-6 and Fig. 2."""

DAGERC: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"model.d_h": 16, "training.epochs": 2, "training.curriculum": 0},
    # For the features that LFVD's variant of this name is for.
    "plain_features": {
        "model.d_h": 128,
        "model.dag_layers": 2,
        "model.dropout": 0.4,
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 0.1,
        "training.batch_size": 8,
        "training.epochs": 20,
    },
    **MODALITY_SUBSETS,
    # MultiDAG's input: all that the corpus has, side by side.
    "all_modalities": {"model.modalities": ()},
    # Scores that an utterance has a say in, see `jmer.models.dagerc.DAGERC`.
    "leaky_relu": {"model.score": "leaky_relu"},
}
"""Variants of DAG-ERC and MultiDAG."""

SDT: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"model.d": 16, "model.heads": 2, "training.epochs": 2},
    # For what PLAIN_FEATURES says; with a fourteenth of the parameters.
    "plain_features": {
        "model.d": 256,
        "optimizer.learning_rate": 1e-3,
        "training.batch_size": 8,
        "training.epochs": 30,
    },
    **MODALITY_SUBSETS,
    "without_positions": {"model.positional": "none"},
    "without_speakers": {"model.speaker_embedding": False},
    "without_intra": {"model.use_intra": False},
    "without_inter": {"model.use_inter": False},
    "without_unimodal_gates": {"model.unimodal_gate": "none"},
    "without_hard_labels": {"loss.gamma_hard": 0.0},
    "without_soft_labels": {"loss.gamma_soft": 0.0},
    "without_distillation": {"loss.gamma_hard": 0.0, "loss.gamma_soft": 0.0},
}
"""Variants of SDT: what its paper leaves out one by one."""


LPGNET: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"model.d": 16, "training.epochs": 2},
    "plain_features": {
        "optimizer.learning_rate": 3e-4,
        "training.batch_size": 8,
        "training.epochs": 20,
    },
    # Utterances as sequences of frames, in a corpus that has them.
    "frame": {"model.mode": "frame", "data.path": "synthetic-iemocap4-frames"},
    # Ablations: modalities, parts.
    "text": {"model.modalities": ("text",)},
    "audio": {"model.modalities": ("audio",)},
    "without_inter": {"model.use_inter": False},
    "without_intra": {"model.use_intra": False},
    "without_ffn": {"model.use_ffn": False},
    "without_dual_gates": {"model.use_unimodal_gate": False, "model.use_multimodal_gate": False},
    # The grid of the loss weights γ1 (task), γ2 (hard labels), γ3 (soft labels); the default is 1.5, 1, 0.3.
    "gammas_1_1_1": {"loss.gamma_task": 1.0, "loss.gamma_soft": 1.0},
    "gammas_1_0_1": {"loss.gamma_task": 1.0, "loss.gamma_hard": 0.0, "loss.gamma_soft": 1.0},
    "gammas_1_1_0": {"loss.gamma_task": 1.0, "loss.gamma_soft": 0.0},
    "gammas_1.5_1_0": {"loss.gamma_soft": 0.0},
}
"""Variants of LPGNet, after the tables of its paper."""


VARIANTS = {"lfvd": LFVD, "dagerc": DAGERC, "sdt": SDT, "lpgnet": LPGNET}
"""Name of a model -> its variants."""


def with_variants(config: ConfigDict, names: str) -> ConfigDict:
    """Returns a copy of an experiment with some of its model's variants applied, one after the other.

    Args:
      config: the experiment's configuration.
      names: variants joined by commas, e.g. `without_cear,tiny`; empty = none.

    Raises:
      UserError: for an unknown variant.
    """
    config, variants = config.copy_and_resolve_references(), VARIANTS[config.model.name]
    for name in filter(None, names.split(",")):
        if name not in variants:
            raise UserError(f"no variant '{name}' of this experiment: choose from {', '.join(variants)}")
        config.update_from_flattened_dict(variants[name])
    return config
