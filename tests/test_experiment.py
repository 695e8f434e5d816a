"""Experiments are found by name and by path, and their fields change by the type of their values."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jmer.config import base_config, flatten
from jmer.errors import UserError
from jmer.experiment import change_fields, experiment_files, get_config

MELD = "configs/lfvd_meld.py"


def test_an_experiment_has_a_name_and_a_path_and_variants(tmp_path, monkeypatch):
    by_path, absolute = get_config(MELD), Path(MELD).absolute()
    monkeypatch.chdir(tmp_path)
    assert get_config("lfvd_meld") == get_config(absolute) == get_config(str(absolute)) == by_path
    varied = get_config("lfvd_meld:tiny,without_cear")
    assert (varied.model.d_x, varied.model.use_atmosphere, varied.training.epochs) == (16, False, 2)
    assert get_config(f"{absolute}:tiny,without_cear") == varied
    assert set(experiment_files()) == {path.stem for path in absolute.parent.glob("*.py")} - {"__init__"}


def test_a_models_name_gives_its_base_configuration():
    assert flatten(get_config("lfvd")) == flatten(base_config("lfvd"))
    assert get_config("lfvd:tiny").model.d_x == 16


def test_a_file_named_as_an_experiment_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lfvd_meld").write_text(
        "from jmer.experiment import get_config as base\nget_config = lambda: base('sdt')"
    )
    assert get_config("lfvd_meld").model.name == "sdt"
    (tmp_path / "lfvd_meld").unlink()
    (tmp_path / "lfvd_meld").mkdir()
    assert get_config("lfvd_meld").model.name == "lfvd"


def test_a_file_runs_once_until_it_changes_and_imports_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("EPOCHS = 3\n")
    mine = tmp_path / "mine.py"
    text = (
        "from jmer.config import base_config\nfrom neighbour_of_mine import EPOCHS\nRUNS = []\n\n"
        "def get_config():\n    RUNS.append(None)\n    config = base_config('sdt')\n"
        "    config.training.epochs = EPOCHS + len(RUNS)\n    return config\n"
    )
    mine.write_text(text)
    before = list(sys.path)
    assert [get_config(mine).training.epochs for _ in range(2)] == [4, 5]
    mine.write_text(text.replace("EPOCHS +", "10 +"))
    assert get_config(mine).training.epochs == 11
    assert sys.path == before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "lfvd_mled",
            "experiment lfvd_mled is unknown: did you mean lfvd_meld? Otherwise choose one of ",
        ),
        ("lfvdd", "experiment lfvdd is unknown: did you mean lfvd?"),
        ("zzz", "experiment zzz is unknown: choose one of "),
        ("none.py", "experiment none.py does not exist: choose one of "),
        ("configs", "experiment configs is a folder: choose"),
        ("sdt:huge", "sdt: no variant 'huge'"),
    ],
)
def test_an_unknown_experiment(source, expected):
    with pytest.raises(UserError) as error:
        get_config(source)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_arguments_of_another_type():
    with pytest.raises(UserError, match=r"^source is of type ConfigDict: give the name or the file of an experiment$"):
        get_config(get_config("lfvd"))
    with pytest.raises(UserError, match=r"^changes is of type str: give a mapping from section\.field to a value$"):
        get_config("lfvd", "training.epochs=3")


def test_fields_change_by_the_type_of_their_value():
    config = get_config(f"{MELD}:tiny,without_cear")
    assert (config.model.d_x, config.model.use_atmosphere, config.training.epochs) == (16, False, 2)
    changes = {
        "training.epochs": "7",
        "optimizer.learning_rate": "1e-3",
        "loss.tau": "1",
        "model.causal": "True",
        "model.bidirectional": "0",
        "data.path": "a=b",
    }
    expected = {
        "training.epochs": 7,
        "optimizer.learning_rate": 1e-3,
        "loss.tau": 1.0,
        "model.causal": True,
        "model.bidirectional": False,
        "data.path": "a=b",
    }
    plain = expected | {"loss.tau": 1}
    scalars = plain | {"training.epochs": np.int64(7), "loss.tau": np.float32(1), "model.causal": np.True_}
    for given in (changes, plain, scalars):
        changed = flatten(change_fields(config, given))
        found = {name: changed[name] for name in given}
        assert found == expected and [*map(type, found.values())] == [*map(type, expected.values())]
    for value in ("text,audio", "('text', 'audio')", '["text","audio"]', ("text", "audio"), ["text", "audio"]):
        assert change_fields(config, {"model.modalities": value}).model.modalities == ("text", "audio")
    for value in ("()", "", (), []):
        assert change_fields(config, {"model.modalities": value}).model.modalities == ()
    assert config.training.epochs == 2
    assert get_config(MELD, {"training.epochs": 3}).training.epochs == 3


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("loss.tau", "1,5", "a number, got '1,5'"),
        ("loss.tau", float("nan"), "a number, got nan"),
        ("loss.tau", True, "a number, got True"),
        ("loss.tau", None, "a number, got None"),
        ("training.epochs", 1.5, "a whole number, got 1.5"),
        ("training.epochs", "1.5", "a whole number, got '1.5'"),
        ("training.epochs", True, "a whole number, got True"),
        ("model.causal", 1, "true or false, got 1"),
        ("model.causal", "maybe", "true or false, got 'maybe'"),
        ("data.path", 3, "a text, got 3"),
        ("model.modalities", 3, "values separated by commas, got 3"),
        ("model.modalities", [3], r"values separated by commas, got \[3\]"),
    ],
)
def test_a_value_of_another_type(field, value, expected):
    with pytest.raises(UserError, match=f"^{field}: expected {expected}$"):
        get_config("lfvd", {field: value})


def test_a_tuple_of_numbers_keeps_its_type():
    config = get_config("lfvd")
    with config.unlocked():
        config.model.sizes = (3, 5)
    assert change_fields(config, {"model.sizes": "7,9,11"}).model.sizes == (7, 9, 11)
    with pytest.raises(UserError, match=r"^model\.sizes: expected values separated by commas, got '7,x'"):
        change_fields(config, {"model.sizes": "7,x"})


def test_an_experiment_is_found_from_any_folder(tmp_path):
    program = "from jmer.experiment import get_config; print(get_config('lfvd_meld:tiny').training.epochs)"
    root = str(Path(__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
