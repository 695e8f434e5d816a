"""MMGCN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

from plain_torch_networks import SIZES, WEIGHTS, check_dropout, check_equal
from tiny import WIDTHS

from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.mmgcn import MMGCN, load_parameters
from jmer import models


def plain(params):
    model = MMGCN(WIDTHS, **SIZES, speakers=3, dropout_rate=0.0).double()
    load_parameters(model, params)
    return model


def test_output_loss_and_gradient_are_those_of_jmer():
    network = models.MMGCN(**SIZES, speakers=3, dropout_rate=0.0)
    loss = models.FocalClassificationLoss(class_weights=WEIGHTS)
    check_equal(network, loss, plain, CrossEntropyLoss(WEIGHTS))


def test_dropout_falls_in_training_alone():
    check_dropout(MMGCN(WIDTHS, **SIZES, dropout_rate=0.5).double())
