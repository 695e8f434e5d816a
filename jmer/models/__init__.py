"""Models: networks with their losses."""

from jmer.models.dagerc import DAGERC, DAGERCLoss, DAGERCOutput
from jmer.models.lfvd import LFVD, LFVDLoss, LFVDOutput
from jmer.models.lpgnet import LPGNet
from jmer.models.model import Model
from jmer.models.registry import create
from jmer.models.sdt import SDT
from jmer.models.self_distillation import SelfDistillationLoss, SelfDistilledOutput

__all__ = [
    "DAGERC",
    "LFVD",
    "SDT",
    "DAGERCLoss",
    "DAGERCOutput",
    "LFVDLoss",
    "LFVDOutput",
    "LPGNet",
    "Model",
    "SelfDistillationLoss",
    "SelfDistilledOutput",
    "create",
]
