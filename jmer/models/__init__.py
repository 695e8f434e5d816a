"""Models: networks with their losses."""

from jmer.models.lfvd import LFVD, LFVDLoss, LFVDOutput
from jmer.models.model import Model
from jmer.models.registry import create

__all__ = ["LFVD", "LFVDLoss", "LFVDOutput", "Model", "create"]
