"""LSDGNN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

from plain_torch_networks import check_dropout, check_equal
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.lsdgnn import LSDGNN, LSDGNNLoss, load_parameters
from jmer import models

SIZES = {"num_classes": len(EMOTIONS), "d_h": 4, "dag_layers": 2, "omega_long": 2}


def plain(params):
    model = LSDGNN(WIDTHS, **SIZES, dropout_rate=0.0).double()
    load_parameters(model, params)
    return model


def test_output_loss_and_gradient_are_those_of_jmer():
    check_equal(models.LSDGNN(**SIZES, dropout_rate=0.0), models.LSDGNNLoss(beta=0.3), plain, LSDGNNLoss(beta=0.3))


def test_dropout_falls_in_training_alone():
    check_dropout(LSDGNN(WIDTHS, **SIZES, dropout_rate=0.5).double())
