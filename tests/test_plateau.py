"""The schedule `plateau`: the rate falls where the validation loss does not, in a resumed run at the same epochs."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from test_early_stopping import interruptions
from test_resume import BY_STEP, log, newest
from tiny import PACKED_LINEAR, start, tiny_corpus, train, train_together

from jmer.config import base_config
from jmer.data import make_corpus
from jmer.errors import UserError
from jmer.evaluation.metrics import mean_cross_entropy
from jmer.models import register_model
from jmer.models.classification import classification_term
from jmer.pipeline import Pipeline
from jmer.training.plateau import Plateau, rates

EPOCHS, SEEDS = 7, (3, 0)
# So high that the loss soon rises.
SECTION = {"learning_rate": 2.0, "weight_decay": 0.01, "plateau_factor": 0.25, "plateau_patience": 2}


def cross_entropy(output, batch):
    return {"classification": (1.0, *classification_term(output.logits, batch.labels, batch.mask))}


# The network of `tiny` with a loss that has to do with labels.
CLASSIFIER = dataclasses.replace(PACKED_LINEAR, name="linear_classifier", loss=cross_entropy)


@functools.cache
def corpus():
    return tiny_corpus()


def settings(**changes):
    section = {f"optimizer__{name}": value for name, value in SECTION.items()}
    base = {"training__epochs": EPOCHS, "optimizer__name": "sgd", "optimizer__schedule": "plateau"} | section
    register_model(CLASSIFIER)
    config = base_config(CLASSIFIER.name)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in (base | changes).items()})
    return config


def like():
    return start(settings(), corpus())


@pytest.mark.parametrize(
    ("losses", "patience", "reductions"),
    [
        ([3, 2, 1, 0.5], 1, [0, 0, 0, 0]),
        ([1, 1, 1, 1], 1, [0, 1, 2, 3]),  # an equal loss has not fallen
        ([1, 2, 3, 2, 1.5], 2, [0, 0, 1, 1, 2]),
        ([1, 2, 0.5, 2, 3, 4], 2, [0, 0, 0, 0, 1, 1]),
        ([np.nan, np.inf, 2, 1], 2, [0, 1, 1, 1]),
        ([1, 2, 2, 0.5, 0.6, 0.7], 3, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_when_the_rate_falls(losses, patience, reductions):
    plateau, found = Plateau(), []
    for loss in losses:
        plateau = plateau.after(loss, {"plateau_patience": patience})
        found.append(plateau.reductions)
    assert found == reductions


@pytest.mark.parametrize("patience", [1, 2, 3, 11])
def test_it_is_pytorchs_with_one_more_epoch_of_patience(patience):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=0.0, eps=0.0
    )
    section = {"learning_rate": 1.0, "weight_decay": 0.0, "plateau_factor": 0.5, "plateau_patience": patience}
    plateau = Plateau()
    for loss in np.random.default_rng(0).normal(size=60).tolist():
        rule.step(loss)
        plateau = plateau.after(loss, section)
        assert rates(section, plateau)["learning_rate"] == optimizer.param_groups[0]["lr"]


def test_the_cross_entropy_counts_what_is_labelled():
    probabilities = np.array([[0.2, 0.8], [0.0, 1.0], [0.4, 0.6], [1.0, 0.0]], np.float32)
    assert mean_cross_entropy([1, -1, 0, 0], probabilities) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 3)
    assert mean_cross_entropy([0], probabilities[1:2]) == pytest.approx(-np.log(np.finfo(np.float32).tiny))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    parent, lines = tmp_path_factory.mktemp("alone"), []
    for seed in SEEDS:
        train(settings(seed=seed), corpus(), parent / f"seed{seed}", lines.append)
    return parent, lines


def folders(parent):
    return [parent / f"seed{seed}" for seed in SEEDS]


def reductions(folder):
    """What the schedule makes of the losses that the log has."""
    plateau, found = Plateau(), []
    for row in log(folder):
        plateau = plateau.after(row["validation/cross_entropy"], SECTION)
        found.append(plateau.reductions)
    return found


def test_each_epoch_has_the_rate_that_the_losses_before_it_give(alone):
    parent, lines = alone
    for seed, folder in zip(SEEDS, folders(parent), strict=True):
        lowered = reductions(folder)
        assert 0 < lowered[-1] < EPOCHS
        state, progress = newest(folder, like())
        assert progress.plateau.reductions == lowered[-1]
        # By hand: the same steps, with the rates set in the state between the epochs.
        run = start(settings(seed=seed), corpus())
        by_hand = run.state
        for epoch, number in enumerate([0, *lowered[:-1]]):
            hyperparams = by_hand.opt_state.hyperparams | {"learning_rate": np.float32(2.0 * 0.25**number)}
            by_hand = run.mapping.replicate(
                dataclasses.replace(by_hand, opt_state=by_hand.opt_state._replace(hyperparams=hyperparams))
            )
            for batch in itertools.islice(run.batches(3 * EPOCHS), 3 * epoch, 3 * epoch + 3):
                by_hand, _ = run.step(by_hand, batch)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), state.params, by_hand.params)
        told = [line for line in lines if line.startswith(f"{folder}: learning rate")]
        epochs = [i + 2 for i, (one, other) in enumerate(itertools.pairwise([0, *lowered])) if other > one]
        assert [int(line.split("from epoch ")[1].split()[0]) for line in told] == epochs
        assert told[0].endswith("the validation loss had not fallen for 2 epochs")
        assert f"learning rate {2.0 / 4:.3g} " in told[0]


def test_seeds_together_are_what_they_are_alone(alone, tmp_path):
    train_together([settings(seed=seed) for seed in SEEDS], corpus(), folders(tmp_path))
    for one, other in zip(folders(tmp_path), folders(alone[0]), strict=True):
        for row, expected in zip(log(one), log(other), strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
        assert newest(one, like())[1].plateau.reductions == newest(other, like())[1].plateau.reductions


@pytest.mark.parametrize(("way", "looks"), [({}, 1), (BY_STEP, 5)], ids=["epochs", "steps"])
def test_a_run_that_is_interrupted_is_the_one_that_is_not(way, looks, tmp_path, monkeypatch):
    asked = settings(**way, training__epochs=6)
    train(asked, corpus(), tmp_path / "whole")
    assert interruptions(monkeypatch, looks, lambda: train(asked, corpus(), tmp_path / "w")) > 2
    assert log(tmp_path / "w") == log(tmp_path / "whole")
    (state, progress), (expected, expected_progress) = (newest(tmp_path / name, like()) for name in ("w", "whole"))
    assert progress == expected_progress and progress.plateau.reductions
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_more_epochs_may_be_asked_for(tmp_path):
    train(settings(training__epochs=4), corpus(), tmp_path / "w")
    train(settings(), corpus(), tmp_path / "w")
    train(settings(), corpus(), tmp_path / "whole")
    assert log(tmp_path / "w") == log(tmp_path / "whole")


def test_it_needs_a_validation_split():
    splits = {split: corpus().conversations(split) for split in ("train", "test")}
    message = (
        "optimizer.schedule=plateau needs labels in split 'validation', but corpus 'synthetic-iemocap4' has none: "
        "convert it with --holdout, or choose another schedule"
    )
    with pytest.raises(UserError, match=f"^{message}$"):
        Pipeline.for_training(settings(selection="last"), make_corpus(splits, corpus().card))
