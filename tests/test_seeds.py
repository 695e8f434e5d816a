"""Mean and deviation over seeds, of runs that differ by nothing else."""

import dataclasses

import numpy as np
import pytest
from tiny import tiny_config

from experiments.seeds import summarize
from jmer.errors import UserError
from jmer.evaluation import classification_report
from jmer.training.folder import CONFIG_FILE, SCORES_FILE, write_json


def run_folder(folder, seed, predictions, **changes):
    config = tiny_config(seed=seed, **changes)
    write_json(folder / CONFIG_FILE, config.to_dict())
    scores = classification_report(np.array([0, 0, 1, 1]), np.array(predictions), ("calm", "angry"))
    chosen = {"corpus": "made up", "selection": "validation", "epoch": seed + 3}
    write_json(folder / SCORES_FILE, chosen | {"splits": {"validation": dataclasses.asdict(scores)}})
    return folder


def test_the_table_has_mean_and_sample_deviation(tmp_path):
    folders = [
        run_folder(tmp_path / "a", 0, [0, 0, 1, 1]),
        run_folder(tmp_path / "b", 1, [0, 1, 1, 1]),
        run_folder(tmp_path / "c", 5, [1, 1, 1, 1], training__devices=1),
    ]
    lines = summarize(folders).splitlines()
    assert lines[0] == "LFVD on made up, 3 seeds (0, 1, 5)"
    assert lines[1] == "epochs 3, 4, 8: chosen by validation weighted F1"
    assert lines[2].split() == ["validation", "accuracy", "75.00", "±", "25.00", "100.00", "75.00", "50.00"]
    assert [line.split()[1] for line in lines[2:]] == ["accuracy", "weighted", "macro", "unweighted"]


def test_refuses_runs_that_are_no_repetitions(tmp_path):
    one = run_folder(tmp_path / "a", 0, [0, 0, 1, 1])
    with pytest.raises(UserError, match=r"seeds 0, 0 are not all different: name each run once"):
        summarize([one, one])
    other = run_folder(tmp_path / "b", 1, [0, 0, 1, 1], model__d_x=8)
    with pytest.raises(UserError, match=r"model.d_x is 8 there and 16 here"):
        summarize([one, other])
    (one / SCORES_FILE).unlink()
    with pytest.raises(UserError, match=r"has no scores.json: let its run finish"):
        summarize([one])
