"""Only `jmer.models` names a model or a field of one: other rooms know models by their `ModelSpec`."""

import ast
import dataclasses
import re
import typing
from pathlib import Path

import pytest

from jmer.models.registry import BUILT_IN

ROOT = Path(__file__).parent.parent / "jmer"
SPECS = [module.SPEC for module in BUILT_IN]
NAMES = {spec.name for spec in SPECS}
EXPERIMENTS = {path.stem for path in (ROOT.parent / "configs").glob("*.py")}
# Layers and losses cite the papers that they implement parts of.
EXEMPT_ROOMS = {"models", "layers", "losses"}
EXEMPT_NAMES = {"data/readers/pickle_layouts.py": {"dialoguegcn", "dialoguernn", "graphsmile", "mmgcn", "sdt"}}
"""File -> names of models that it uses for something else: here, the layout of feature files published with a paper."""
CONTRACT_FIELDS = {"name", "parent", "logits", "num_classes", "modalities", "class_weights"}
"""Fields that `ModelSpec` requires of any model, and those of every Linen module."""
COMMON_WORDS = {
    "attention": "a summary of any model, see `jmer.models.spec.Summaries`",
    "beta": "a distribution of NumPy's generators",
    "dropout": "the random stream",
    "features": "of a conversation",
    "mode": "the command line's",
    "samples": "of sound",
    "score": "of a split or a checkpoint",
    "speakers": "of a conversation",
    "weights": "of the terms of a loss, or a summary of any model",
}
"""Fields of models whose names have another meaning elsewhere -> that meaning."""


def private_fields():
    """Returns the fields of the networks, losses and outputs of all models but those that every model has."""
    outputs = [typing.get_type_hints(spec.module.__call__)["return"] for spec in SPECS]
    described = [*(spec.module for spec in SPECS), *(spec.loss for spec in SPECS), *outputs]
    fields = {field.name for one in described for field in dataclasses.fields(one)}
    return fields - CONTRACT_FIELDS - set(COMMON_WORDS)


def other_rooms():
    return [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in EXEMPT_ROOMS]


def identifiers(tree):
    """Yields the names that a module defines or uses."""
    for node in ast.walk(tree):
        for attribute in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, attribute, None)
            if isinstance(value, str):
                yield value


def accessed(tree):
    """Yields the names of attributes and keyword arguments; a local variable is nobody's field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


def strings(tree):
    """Yields the strings of a module that are not docstrings."""
    documented = [node for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    documentation = {
        id(statement.value) for node in documented for statement in node.body if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def words(text):
    return set(re.split(r"[\W_]+", text.lower()))


def violations(path, source, fields):
    """Returns what names a model in a module, experiments aside, or one of the fields."""
    tree = ast.parse(source)
    names, texts = NAMES - EXEMPT_NAMES.get(path, set()), list(strings(tree))
    experiment = re.compile("|".join(map(re.escape, sorted(EXPERIMENTS, key=len, reverse=True))))
    named = [text for text in (*identifiers(tree), *texts) if words(experiment.sub("", text)) & names]
    # In a string, a field is named by itself or as "section.field".
    used = [text for text in (*accessed(tree), *texts) if text.split(".")[-1] in fields]
    return named + used


def test_the_fields_of_models_are_found():
    assert {"posteriors", "atmosphere", "reconstructions", "unimodal_logits", "gates", "d_x", "gamma_self"} <= (
        private_fields()
    )


@pytest.mark.parametrize("path", other_rooms(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_room_names_a_model_or_a_field_of_one(path):
    assert violations(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"), private_fields()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from jmer.models.lfvd import SPEC",
        "from jmer.models import sdt",
        "if config.model.name == 'lfvd': pass",
        "class LPGNet: pass",
        "x = output.posteriors",
        "x = getattr(output, 'atmosphere')",
        "config.loss.gamma_self = 0",
        "changes = {'model.d_x': 16}",
        "Module(d_x=16)",
        "print('the default is lfvd')",
    ],
)
def test_such_a_name_is_found(source):
    assert violations("some/file.py", source, private_fields())


def test_a_local_variable_may_have_the_name_of_a_field():
    assert violations("some/file.py", "for d, samples in pairs: print(d, samples)", private_fields()) == []


def test_a_paper_may_be_named_in_a_docstring_and_an_experiment_in_a_message():
    assert "lfvd_meld" in EXPERIMENTS
    assert violations("some/file.py", "print('see configs/lfvd_meld.py')", private_fields()) == []
    source = '"""Reads the files of SDT."""\n\n\ndef read():\n    """Reads LFVD\'s posteriors."""\n'
    assert violations("some/file.py", source, private_fields()) == []
