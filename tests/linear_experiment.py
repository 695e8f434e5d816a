"""An experiment of the smallest model, which it registers first: it trains in no time, in any process."""

import dataclasses

from tiny import LINEAR

from jmer.config import base_config
from jmer.models import register_model

register_model(
    dataclasses.replace(
        LINEAR,
        variants={
            "slow": {"optimizer.learning_rate": 0.001},
            "slower": {"optimizer.learning_rate": 0.0001},
            "still_slow": {"optimizer.learning_rate": 0.001},
            "usual": {"optimizer.learning_rate": 0.01},
            "text": {"model.modalities": ("text",)},
            "visual": {"model.modalities": ("visual",)},
        },
    )
)


def get_config():
    config = base_config("linear")
    config.training.update(epochs=7, batch_size=4, parallel="jit")
    config.optimizer.learning_rate = 0.01
    return config
