"""Loading a corpus by the name of a built-in one or by its folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from jmer.data.corpus import IN_MEMORY, Corpus, load_saved
from jmer.data.folds import configured_fold
from jmer.data.synthetic import NAMES, generate
from jmer.errors import UserError
from jmer.files import local_path


def load_configured(data: Mapping) -> Corpus:
    """Loads the corpus of a configuration, or the fold of it that the configuration names.

    Args:
      data: the section `data`.

    Raises:
      UserError: see `load_corpus`; also if there is no such fold.
    """
    return configured_fold(load_corpus(data["path"]), data)


def load_corpus(path_or_name: str | Path) -> Corpus:
    """Loads a built-in synthetic corpus, or one that `save_corpus` wrote.

    Args:
      path_or_name: one of `jmer.data.synthetic.NAMES`, or a folder.

    Raises:
      UserError: if it is neither a name nor a folder, or the folder is not a saved corpus or is damaged.
    """
    if path_or_name in NAMES:
        return dataclasses.replace(generate(path_or_name), source=str(path_or_name))
    if str(path_or_name) == IN_MEMORY:
        raise UserError("the corpus was made in memory, and cannot be loaded again: give the corpus itself")
    if not local_path(path_or_name).exists():
        raise UserError(
            f"no corpus '{path_or_name}': no such folder (make one with `python -m jmer.data.convert`), "
            f"and not one of the built-in {', '.join(NAMES)}"
        )
    return load_saved(path_or_name)
