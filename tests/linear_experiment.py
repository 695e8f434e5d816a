"""An experiment of the smallest model, which it registers: it trains in no time, in any process."""

from tiny import LINEAR

from jmer.config import base_config
from jmer.models import register_model

register_model(LINEAR)


def get_config():
    return base_config("linear")
