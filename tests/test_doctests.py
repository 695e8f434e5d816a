"""The examples in the docstrings of layers and losses run and print what they say."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import jmer.layers
import jmer.losses

MODULES = [
    "jmer.checks",
    "jmer.segments",
    *(
        module.name
        for room in (jmer.layers, jmer.losses)
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("room", [jmer.layers, jmer.losses], ids=lambda room: room.__name__)
def test_public_layers_and_losses_have_an_example(room):
    """A container of arrays speaks for itself."""
    without = {name for name in room.__all__ if ">>> " not in inspect.getdoc(getattr(room, name))}
    assert without <= {"Gaussian"}
