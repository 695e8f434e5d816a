"""An experiment of the smallest model, which it makes known first: it trains in no time, in any process."""

from types import SimpleNamespace

from tiny import linear_model

from jmer import ablations
from jmer.config import base_config
from jmer.models import registry


def defaults():
    model = {"name": "linear", "num_classes": 0, "modalities": (), "dropout": 0.2}
    return {"model": model, "loss": {"class_weights": "none", "class_weight_values": ()}}


registry.MODELS["linear"] = SimpleNamespace(
    defaults=defaults, create=lambda model, loss: linear_model(model["dropout"])
)

ablations.VARIANTS["linear"] = {
    "slow": {"optimizer.learning_rate": 0.001},
    "slower": {"optimizer.learning_rate": 0.0001},
    "still_slow": {"optimizer.learning_rate": 0.001},
    "usual": {"optimizer.learning_rate": 0.01},
    "text": {"model.modalities": ("text",)},
    "visual": {"model.modalities": ("visual",)},
}


def get_config(variants=""):
    config = base_config("linear")
    config.training.update(epochs=7, batch_size=4, parallel="jit")
    config.optimizer.learning_rate = 0.01
    return ablations.with_variants(config, variants)
