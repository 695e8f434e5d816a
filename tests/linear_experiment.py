"""An experiment of the smallest model, which it registers first: it trains in no time, in any process."""

from tiny import LINEAR

from jmer.config import base_config
from jmer.models import register_model

register_model(LINEAR)


def get_config():
    config = base_config("linear")
    config.training.update(epochs=7, batch_size=4, parallel="jit")
    config.optimizer.learning_rate = 0.01
    return config
