"""DialogueCRN in jmer and in plain PyTorch: one output, one loss and one gradient, in float64."""

import pytest
from plain_torch_networks import WEIGHTS, check_dropout, check_equal
from tiny import EMOTIONS, WIDTHS

from experiments.benchmarks.plain_torch.classification import FocalMeanLoss
from experiments.benchmarks.plain_torch.dialoguecrn import DialogueCRN, load_parameters
from jmer import models

SIZES = {"num_classes": len(EMOTIONS), "modalities": ("text", "audio"), "d_h": 3}


@pytest.mark.parametrize(("situation", "speaker"), [(2, 1), (0, 0)])
def test_output_loss_and_gradient_are_those_of_jmer(situation, speaker):
    options = SIZES | {"situation_steps": situation, "speaker_steps": speaker, "dropout_rate": 0.0}

    def plain(params):
        model = DialogueCRN(WIDTHS, **options).double()
        load_parameters(model, params)
        return model

    loss = models.FocalMeanLoss(1.5, class_weights=WEIGHTS)
    check_equal(models.DialogueCRN(**options), loss, plain, FocalMeanLoss(1.5, WEIGHTS))


def test_dropout_falls_in_training_alone():
    check_dropout(DialogueCRN(WIDTHS, **SIZES, dropout_rate=0.5).double())
