"""A selection names the split that chooses the epoch, and the oracle is labelled as one."""

import subprocess
import sys

import pytest

from jmer.errors import UserError
from jmer.selection import SELECTIONS, get_selection


def test_each_selection_has_the_split_that_chooses_the_epoch():
    assert SELECTIONS == {"validation": "validation", "last": None, "test_oracle": "test"}
    assert all((get_selection(name).name, get_selection(name).split) == (name, s) for name, s in SELECTIONS.items())


def test_a_selection_on_the_test_split_is_an_oracle_and_its_description_calls_it_optimistic():
    for rule in map(get_selection, SELECTIONS):
        assert rule.oracle == (rule.split == "test") == ("optimistic, not comparable" in rule.description)


def test_unknown_selection_is_refused():
    with pytest.raises(UserError, match="unknown selection 'best': choose one of validation, last, test_oracle"):
        get_selection("best")


def test_importing_selections_imports_nothing_heavy():
    code = "import sys, jmer.selection; print(sorted({'jax', 'numpy', 'flax', 'pandas'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
