"""Readers of feature files in other formats, one module per format; `jmer.data.convert` lists them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jmer.data.corpus import Corpus


class Reader(Protocol):
    """The functions of a reader's module; its docstring describes the format and is the help of the command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the flags of the format, among them those of `jmer.data.readers.labels.add_label_arguments`."""

    def read(self, sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
        """Reads a corpus and checks it.

        Args:
          sources: files or folders.
          options: parsed flags; `dest` is the folder that the corpus will be saved in.

        Raises:
          UserError: naming the file and the field that is missing or invalid.
        """
