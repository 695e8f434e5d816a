"""The corpora of a grid, each loaded and checked once."""

import functools
from pathlib import Path

import jmer
from jmer.data.corpus import Corpus, any_labelled
from jmer.data.validation import validate_corpus
from jmer.errors import UserError


@functools.cache
def training_corpus(path: str) -> Corpus:
    """Loads a corpus once.

    Args:
      path: a folder, or a synthetic corpus' name.

    Raises:
      UserError: if the corpus is invalid for training, or has no labelled validation split.
    """
    corpus = jmer.load_corpus(path)
    validate_corpus(corpus, for_training=True)
    if "validation" not in corpus.splits or not any_labelled(corpus.conversations("validation")):
        raise UserError(f"corpus '{corpus.card.name}' has no labelled validation split: convert it with --holdout")
    return corpus


def corpus_name(path: str) -> str:
    """Returns the name of a corpus' folder, which its runs' folders and files are named after."""
    return Path(path).resolve().name
