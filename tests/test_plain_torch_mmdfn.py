"""MM-DFN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

from plain_torch_networks import SIZES, WEIGHTS, check_dropout, check_equal
from tiny import WIDTHS

from experiments.benchmarks.plain_torch.classification import FocalMeanLoss
from experiments.benchmarks.plain_torch.mmdfn import MMDFN, load_parameters
from jmer import models

OPTIONS = SIZES | {"party_weights": (1.5, 0.5, 0.0)}


def plain(params):
    model = MMDFN(WIDTHS, **OPTIONS, dropout_rate=0.0).double()
    load_parameters(model, params)
    return model


def test_output_loss_and_gradient_are_those_of_jmer():
    network = models.MMDFN(**OPTIONS, dropout_rate=0.0)
    check_equal(network, models.FocalMeanLoss(0.5, class_weights=WEIGHTS), plain, FocalMeanLoss(0.5, WEIGHTS))


def test_dropout_falls_in_training_alone():
    check_dropout(MMDFN(WIDTHS, **SIZES, dropout_rate=0.5).double())
