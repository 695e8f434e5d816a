"""DialogueRNN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

from plain_torch_networks import WEIGHTS, batch_with_gaps, check_dropout, check_equal
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss
from experiments.benchmarks.plain_torch.dialoguernn import DialogueRNN, load_parameters
from jmer import models

SIZES = {"num_classes": len(EMOTIONS), "d_g": 6, "d_p": 5, "d_e": 4, "d_h": 3, "speakers": 3}
NO_DROPOUT = dict.fromkeys(("recurrent_dropout_rate", "emotion_dropout_rate", "dropout_rate"), 0.0)


def plain(params):
    model = DialogueRNN(WIDTHS, **SIZES, **NO_DROPOUT).double()
    load_parameters(model, params)
    return model


def test_output_loss_and_gradient_are_those_of_jmer():
    losses = models.CrossEntropyLoss(WEIGHTS), plain, CrossEntropyLoss(WEIGHTS)
    check_equal(models.DialogueRNN(**SIZES, **NO_DROPOUT), *losses, sample=batch_with_gaps(4), rtol=1e-9)


def test_dropout_falls_in_training_alone():
    check_dropout(DialogueRNN(WIDTHS, **SIZES).double(), sample=batch_with_gaps(4))
