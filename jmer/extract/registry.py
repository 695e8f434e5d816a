"""Extractors by name, and what a command line says of one: `NAME[:ARGUMENT][,OPTION=VALUE...]`."""

import dataclasses
import difflib
import functools
import importlib.util
import typing
from pathlib import Path
from typing import Any

from jmer.docstrings import attribute_docs
from jmer.errors import UserError
from jmer.extract.protocol import Extractor

CLASSES = {
    "hashing": "jmer.extract.hashing:Hashing",
    "bert": "jmer.extract.bert:Bert",
    "acoustic": "jmer.extract.acoustic:Acoustic",
    "opensmile": "jmer.extract.opensmile:OpenSmile",
    "speech": "jmer.extract.speech:Speech",
    "emotion2vec": "jmer.extract.emotion2vec:Emotion2vec",
    "onnx": "jmer.extract.onnx:Onnx",
    "faces": "jmer.extract.faces:Faces",
}
"""Name -> where its class is."""


def extractor_class(name: str) -> type[Extractor]:
    """Returns the class of an extractor. Raises UserError for an unknown name."""
    if name not in CLASSES:
        raise UserError(f"no extractor '{name}', only {', '.join(CLASSES)} (see `jmer extract --list`)")
    module, _, found = CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), found)


def make_extractor(given: str, modality: str) -> Extractor:
    """Makes the extractor that a command line, or a corpus' card, names.

    While its files do not change, it is the same one again, with what it has loaded.

    Args:
      given: e.g. `hashing`, `hashing,width=256`, `bert:models/minilm,layer=-2`.
      modality: that it must be of.

    Raises:
      UserError: for an unknown name, option or value, or an extractor of another modality.
    """
    head, *pairs = given.split(",")
    name, colon, argument = head.partition(":")
    found = extractor_class(name)
    if found.modality != modality:
        names = [known for known in CLASSES if extractor_class(known).modality == modality]
        raise UserError(
            f"--{modality} {given}: extractor '{name}' makes {found.modality} features: for {modality} there are "
            f"{', '.join(names)}"
        )
    fields = {field.name: field for field in dataclasses.fields(found)}
    values: dict[str, str] = {}
    if colon:
        if not fields:
            raise UserError(f"--{modality} {given}: extractor '{name}' takes nothing after its name")
        values[next(iter(fields))] = argument
    for pair in pairs:
        option, equals, text = pair.partition("=")
        if option not in fields:
            close = difflib.get_close_matches(option, fields, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            listed = ", ".join(fields) or "none"
            raise UserError(f"--{modality} {given}: '{name}' has no option '{option}': {hint}It has {listed}")
        if not equals or option in values:
            fault = "is given twice" if equals else f"has no value: write {option}=VALUE"
            raise UserError(f"--{modality} {given}: option '{option}' {fault}")
        values[option] = text
    types = typing.get_type_hints(found)
    parsed = {option: _parsed(f"--{modality} {given}", option, text, types[option]) for option, text in values.items()}
    required = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in parsed]
    if required:
        raise UserError(f"--{modality} {given}: write {name}:{required[0].upper()}, {option_docs(found)[required[0]]}")
    try:
        made = found(**parsed)
    except ValueError as error:
        raise UserError(f"--{modality} {given}: {error}") from error
    try:
        states = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in made.files)
    except (OSError, UserError):  # which `check` reports
        return made
    return _first_made(made, states)


@functools.lru_cache(maxsize=8)
def _first_made(extractor: Extractor, states: tuple[tuple[Path, int, int], ...]) -> Extractor:
    """Returns the first one that was equal to an extractor when its files were in these states."""
    return extractor


def named(extractor: Extractor) -> str:
    """Returns what names an extractor on a command line, from any folder: `make_extractor` undone."""
    fields = dataclasses.fields(extractor)
    values = {field.name: getattr(extractor, field.name) for field in fields}
    differing = {field.name: values[field.name] for field in fields if values[field.name] != field.default}
    argument = ""
    if fields and fields[0].name in differing:
        argument = f":{_shown(differing.pop(fields[0].name))}"
    return ",".join([extractor.name + argument, *(f"{name}={_shown(value)}" for name, value in differing.items())])


def option_docs(found: type[Extractor]) -> dict[str, str]:
    """Returns option -> what it is, from the docstring of an extractor's class."""
    return attribute_docs(found)


def described(found: type[Extractor]) -> list[str]:
    """Returns lines on an extractor and its options, for `jmer extract --list`."""
    summary = (found.__doc__ or "").partition("\n")[0]
    fields = dataclasses.fields(found)
    argument = f":{fields[0].name.upper()}" if fields and fields[0].default is dataclasses.MISSING else ""
    lines = [f"{found.name}{argument}  {_state(found)}", f"    {summary}", f"    licence: {found.licence}"]
    docs = option_docs(found)
    for field in fields:
        default = "" if field.default is dataclasses.MISSING else f"={_shown(field.default)}"
        lines.append(f"    {field.name}{default}  {docs.get(field.name, '')}")
    return lines


def _state(found: type[Extractor]) -> str:
    missing = [module for module in found.imports if importlib.util.find_spec(module.partition(".")[0]) is None]
    return f"not installed: pip install 'jmer[{found.extra}]'" if missing else "installed"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value.absolute()) if isinstance(value, Path) else str(value)


def _parsed(where: str, option: str, text: str, kind: Any) -> Any:
    """Returns the value that a text gives to an option of a type."""
    kinds = [one for one in typing.get_args(kind) if one is not type(None)] or [kind]
    if kinds[0] is bool:
        if text not in ("true", "false"):
            raise UserError(f"{where}: option '{option}' is '{text}': expected true or false")
        return text == "true"
    expected = {int: "a whole number", float: "a number", str: "a word", Path: "a path"}[kinds[0]]
    try:
        return kinds[0](text)
    except ValueError as error:
        raise UserError(f"{where}: option '{option}' is '{text}': expected {expected}") from error
