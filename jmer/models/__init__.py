"""Models: networks with their losses, and what each declares to the rest of jmer."""

from jmer.models.classification import ClassifierOutput, CrossEntropyLoss, FocalClassificationLoss, FocalMeanLoss
from jmer.models.cogmen import COGMEN
from jmer.models.concat_mlp import ConcatMLP
from jmer.models.contract import check_model
from jmer.models.dagerc import DAGERC, DAGERCLoss, DAGERCOutput
from jmer.models.dialoguecrn import DialogueCRN
from jmer.models.dialoguegcn import DialogueGCN
from jmer.models.dialoguernn import DialogueRNN
from jmer.models.encoders import Encoders, encoders_of, expose_encodings
from jmer.models.graphsmile import GraphSmile, GraphSmileLoss, GraphSmileOutput
from jmer.models.lfvd import LFVD, LFVDLoss, LFVDOutput
from jmer.models.lpgnet import LPGNet
from jmer.models.lsdgnn import LSDGNN, LSDGNNLoss, LSDGNNOutput
from jmer.models.m2fnet_like import M2FNetLike
from jmer.models.m3net import M3NET
from jmer.models.mmdfn import MMDFN
from jmer.models.mmgcn import MMGCN
from jmer.models.multiemo import MultiEMO, MultiEMOLoss, MultiEMOOutput
from jmer.models.registry import build_model, get_spec, model_names, register_model
from jmer.models.sdt import SDT
from jmer.models.self_distillation import SelfDistillationLoss, SelfDistilledOutput
from jmer.models.spec import LossTerm, Model, ModelSpec, Summaries, is_off

__all__ = [
    "COGMEN",
    "DAGERC",
    "LFVD",
    "LSDGNN",
    "M3NET",
    "MMDFN",
    "MMGCN",
    "SDT",
    "ClassifierOutput",
    "ConcatMLP",
    "CrossEntropyLoss",
    "DAGERCLoss",
    "DAGERCOutput",
    "DialogueCRN",
    "DialogueGCN",
    "DialogueRNN",
    "Encoders",
    "FocalClassificationLoss",
    "FocalMeanLoss",
    "GraphSmile",
    "GraphSmileLoss",
    "GraphSmileOutput",
    "LFVDLoss",
    "LFVDOutput",
    "LPGNet",
    "LSDGNNLoss",
    "LSDGNNOutput",
    "LossTerm",
    "M2FNetLike",
    "Model",
    "ModelSpec",
    "MultiEMO",
    "MultiEMOLoss",
    "MultiEMOOutput",
    "SelfDistillationLoss",
    "SelfDistilledOutput",
    "Summaries",
    "build_model",
    "check_model",
    "encoders_of",
    "expose_encodings",
    "get_spec",
    "is_off",
    "model_names",
    "register_model",
]
