"""Text features without a network or weights: hashed pieces of words."""

import dataclasses
import re
import zlib

import numpy as np

from jmer.extract.protocol import TextExtractor, Words


@dataclasses.dataclass(frozen=True)
class Hashing(TextExtractor):
    r"""Counts of hashed character n-grams of words, without weights: a default that runs anywhere.

    The counts :math:`n_j` of the n-grams that fall into column :math:`j` become

    .. math:: x_j = \frac{\log(1 + n_j)}{\lVert \log(1 + n) \rVert_2}

    (feature hashing: Weinberger et al. 2009; character n-grams at word boundaries as in fastText, Bojanowski et al.
    2017). Words are in lower case, with a blank before and after each.

    Attributes:
      columns: number of columns.
      shortest: characters of the shortest n-grams.
      longest: characters of the longest n-grams.
    """

    columns: int = 1024
    shortest: int = 2
    longest: int = 4

    name = "hashing"
    licence = "none: jmer's own, without weights"

    def __post_init__(self):
        if self.columns < 1 or not 1 <= self.shortest <= self.longest:
            raise ValueError("columns must be at least 1, and 1 <= shortest <= longest")

    @property
    def width(self) -> int:
        return self.columns

    def __call__(self, words: Words) -> np.ndarray:
        counts = np.zeros(self.columns)
        for piece in re.findall(r"\w+|[^\w\s]+", words.turn.text.lower()):
            word = f" {piece} "
            for length in range(self.shortest, self.longest + 1):
                for start in range(len(word) - length + 1):
                    # Python's own hash differs from process to process.
                    counts[zlib.crc32(word[start : start + length].encode()) % self.columns] += 1
        values = np.log1p(counts)
        return (values / max(np.linalg.norm(values), np.finfo(np.float32).tiny)).astype(np.float32)
