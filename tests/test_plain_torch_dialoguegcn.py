"""DialogueGCN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

from plain_torch_networks import WEIGHTS, batch_with_gaps, check_dropout, check_equal
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.dialoguegcn import DialogueGCN, load_parameters
from jmer import models

SIZES = {
    "num_classes": len(EMOTIONS),
    "d_rnn": 3,
    "num_bases": 4,
    "d_h1": 4,
    "d_h2": 5,
    "d_hidden": 4,
    "window_past": 2,
    "window_future": 1,
    "speakers": 2,
}


def plain(params):
    model = DialogueGCN(WIDTHS, **SIZES, dropout_rate=0.0).double()
    load_parameters(model, params)
    return model


def test_output_loss_and_gradient_are_those_of_jmer():
    losses = models.CrossEntropyLoss(WEIGHTS), plain, CrossEntropyLoss(WEIGHTS)
    check_equal(models.DialogueGCN(**SIZES, dropout_rate=0.0), *losses, sample=batch_with_gaps(3), rtol=1e-9)


def test_dropout_falls_in_training_alone():
    check_dropout(DialogueGCN(WIDTHS, **SIZES, dropout_rate=0.5).double(), sample=batch_with_gaps(3))
