"""The network in the manner of M2FNet in jmer and in plain PyTorch: one output, loss and gradient, in float64."""

import pytest
from plain_torch_networks import WEIGHTS, check_dropout, check_equal
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.m2fnet_like import M2FNetLike, load_parameters
from jmer import models

SIZES = {"num_classes": len(EMOTIONS), "d": 4, "encoder_layers": 1, "d_ff": 5, "num_heads": 2, "fusion_layers": 2}


@pytest.mark.parametrize("width", [0, 6])
def test_output_loss_and_gradient_are_those_of_jmer(width):
    options = SIZES | {"encoder_width": width, "dropout_rate": 0.0}

    def plain(params):
        model = M2FNetLike(WIDTHS, **options).double()
        load_parameters(model, params)
        return model

    # In PyTorch's attention, a row of padding alone is not a number.
    check_equal(
        models.M2FNetLike(**options), models.CrossEntropyLoss(WEIGHTS), plain, CrossEntropyLoss(WEIGHTS), rows=3
    )


def test_dropout_falls_in_training_alone():
    check_dropout(M2FNetLike(WIDTHS, **SIZES, dropout_rate=0.5).double(), rows=3)
