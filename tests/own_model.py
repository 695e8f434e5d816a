"""A model of a user's own, in one file: tests copy it to a place outside the repository."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct

import jmer
from jmer.config import base_config
from jmer.losses import cross_entropy


@struct.dataclass
class Output:
    logits: Any


class Mine(nn.Module):
    num_classes: int
    modalities: tuple[str, ...] = ()
    width: int = 32
    dropout_rate: float = 0.2

    @nn.compact
    def __call__(self, batch, *, train=False):
        x = jnp.concatenate([nn.Dense(self.width, name=m)(batch.features[m]) for m in self.modalities], -1)
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.relu(x))
        return Output(nn.Dense(self.num_classes)(x))


@dataclasses.dataclass(frozen=True)
class MineLoss:
    weight: float = 1.0

    def __call__(self, output, batch, axis=None):
        counted = batch.mask & (batch.labels >= 0)
        return {"task": (self.weight, cross_entropy(output.logits, batch.labels, where=counted).sum(), counted.sum())}


jmer.register_model(
    jmer.ModelSpec(
        name="mine", module=Mine, loss=MineLoss, loss_weights=("weight",), variants={"small": {"model.width": 8}}
    )
)


def get_config():
    config = base_config("mine")
    config.data.path = "synthetic-iemocap6"
    config.optimizer.learning_rate = 1e-3
    config.training.update(epochs=3, batch_size=16)
    return config
