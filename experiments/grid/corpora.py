"""The corpora of a grid, each loaded and checked once."""

import functools
from pathlib import Path

from ml_collections import ConfigDict

import jmer
from jmer.data.corpus import Corpus, any_labelled
from jmer.data.folds import configured_fold
from jmer.data.validation import validate_corpus
from jmer.errors import UserError


@functools.cache
def whole_corpus(path: str) -> Corpus:
    """Loads a corpus once.

    Args:
      path: a folder, or a synthetic corpus' name.

    Raises:
      UserError: if the corpus is invalid for training.
    """
    corpus = jmer.load_corpus(path)
    validate_corpus(corpus, for_training=True)
    return corpus


def training_corpus(path: str) -> Corpus:
    """Loads a corpus once, see `whole_corpus`. Raises UserError also if it has no labelled validation split."""
    corpus = whole_corpus(path)
    if "validation" not in corpus.splits or not any_labelled(corpus.conversations("validation")):
        raise UserError(f"corpus '{corpus.card.name}' has no labelled validation split: convert it with --holdout")
    return corpus


def configured_corpus(config: ConfigDict) -> Corpus:
    """Returns the corpus that a configuration trains on, or the fold of it; see `training_corpus`."""
    data = config.data
    return (
        _fold(data.path, data.folds, data.fold, data.holdout, data.holdout_by)
        if data.fold
        else training_corpus(data.path)
    )


@functools.cache
def _fold(path: str, folds: str, fold: str, holdout: float, by: str) -> Corpus:
    data = {"folds": folds, "fold": fold, "holdout": holdout, "holdout_by": by}
    return configured_fold(whole_corpus(path), data)


def corpus_name(path: str) -> str:
    """Returns the name of a corpus' folder, which its runs' folders and files are named after."""
    return Path(path).resolve().name
