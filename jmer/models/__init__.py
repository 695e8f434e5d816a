"""Models: networks with their losses, and what each declares to the rest of jmer."""

from jmer.models.classification import ClassifierOutput, CrossEntropyLoss
from jmer.models.concat_mlp import ConcatMLP
from jmer.models.contract import check_model
from jmer.models.dagerc import DAGERC, DAGERCLoss, DAGERCOutput
from jmer.models.lfvd import LFVD, LFVDLoss, LFVDOutput
from jmer.models.lpgnet import LPGNet
from jmer.models.m3net import M3NET
from jmer.models.registry import build_model, get_spec, model_names, register_model
from jmer.models.sdt import SDT
from jmer.models.self_distillation import SelfDistillationLoss, SelfDistilledOutput
from jmer.models.spec import LossTerm, Model, ModelSpec, Summaries, is_off

__all__ = [
    "DAGERC",
    "LFVD",
    "M3NET",
    "SDT",
    "ClassifierOutput",
    "ConcatMLP",
    "CrossEntropyLoss",
    "DAGERCLoss",
    "DAGERCOutput",
    "LFVDLoss",
    "LFVDOutput",
    "LPGNet",
    "LossTerm",
    "Model",
    "ModelSpec",
    "SelfDistillationLoss",
    "SelfDistilledOutput",
    "Summaries",
    "build_model",
    "check_model",
    "get_spec",
    "is_off",
    "model_names",
    "register_model",
]
