"""The concat MLP in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

from plain_torch_networks import WEIGHTS, batch_with_gaps, check_equal
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch import concat_mlp
from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from jmer import models

SIZES = {"num_classes": len(EMOTIONS), "d_h": 5, "d_f": 3, "dropout_rate": 0.0}


def plain(params):
    model = concat_mlp.ConcatMLP(WIDTHS, **SIZES).double()
    concat_mlp.load_parameters(model, params)
    return model


def test_output_loss_and_gradient_are_those_of_jmer():
    losses = models.CrossEntropyLoss(WEIGHTS), plain, CrossEntropyLoss(WEIGHTS)
    check_equal(models.ConcatMLP(**SIZES), *losses, sample=batch_with_gaps(4), rtol=1e-9)
