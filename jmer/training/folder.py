"""The folder of a run: which configuration and corpus it belongs to, and what lies where."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jmer.data.corpus import Card
from jmer.errors import UserError
from jmer.files import atomically

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
CHECKPOINT_FOLDER = "checkpoints"
PREDICTION_FOLDER = "predictions"
# What may change when a run goes on: how it is computed, and for how long.
MAY_CHANGE = ("training.epochs", "training.parallel", "training.devices")


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a run was made with, besides its configuration.

    Attributes:
      card: the training corpus' card.
      versions: of the software and the devices.
      command: the command line.
      parameters: number of trained parameters.
    """

    card: Card
    versions: Mapping[str, str]
    command: str
    parameters: int


def claim(workdir: Path, config: ConfigDict, facts: RunFacts) -> None:
    """Makes a folder this run's: writes its configuration and facts, or finds that they are there already.

    Raises:
      UserError: if the folder belongs to another configuration or another corpus, or cannot be written.
    """
    if (workdir / CONFIG_FILE).exists():
        saved = read_config(workdir)
        fixed = () if saved.optimizer.schedule == "constant" else ("training.epochs",)
        check_same(workdir, saved, config, ignore=[name for name in MAY_CHANGE if name not in fixed])
        if read_facts(workdir).card != facts.card:
            raise UserError(f"{workdir} was trained on another version of '{facts.card.name}': name another --workdir")
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(f"{workdir} exists and holds no run: name another --workdir")
    write_json(workdir / RUN_FILE, dataclasses.asdict(facts))
    write_json(workdir / CONFIG_FILE, config.to_dict())


def check_same(workdir: Path, saved: ConfigDict, config: ConfigDict, *, ignore: Collection[str]) -> None:
    """Raises UserError, naming the first field that differs, if a folder's configuration is another one."""
    there, here = flatten(saved.to_dict()), flatten(config.to_dict())
    for name in sorted(there.keys() | here.keys()):
        if name not in ignore and there.get(name) != here.get(name):
            raise UserError(
                f"{workdir} belongs to another configuration: {name} is {there.get(name)!r} there and "
                f"{here.get(name)!r} here; name another --workdir"
            )


def read_config(workdir: Path) -> ConfigDict:
    """Returns the configuration of the run in a folder. Raises UserError if there is none."""
    return ConfigDict(_tuples(_read_json(workdir / CONFIG_FILE)))


def read_facts(workdir: Path) -> RunFacts:
    """Returns the facts of the run in a folder. Raises UserError if there are none."""
    fields = _read_json(workdir / RUN_FILE)
    card = Card(**fields.pop("card"))
    return RunFacts(dataclasses.replace(card, emotions=tuple(card.emotions)), **fields)


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """Returns a nested configuration as `section.field` -> value."""
    flat = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    with atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} holds no run: it has no {path.name}; train one with --mode train") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): name another --workdir") from error


def _tuples(value: Any) -> Any:
    """Turns JSON's lists back into the tuples that configurations hold."""
    if isinstance(value, Mapping):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
