"""What a run predicts besides corpora: recordings and dialogues, whose features it makes as training did."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jmer.data.corpus import CARD_FILE, Card, Conversation, Corpus
from jmer.data.synthetic import NAMES
from jmer.extract.cache import Cache
from jmer.extract.corpus import missing_lines
from jmer.extract.manifest import Row
from jmer.extract.prediction import extract_like_training, trained_extractors
from jmer.extract.sources import DIALOGUE, rows_of, rows_of_utterances
from jmer.files import local_path
from jmer.warning import warn

Dialogue = Sequence[str | Mapping[str, Any]]
"""Utterances: texts, or mappings with fields of a manifest, such as `speaker`, `transcript`, `file`, `start`, `end`."""


class Extraction(NamedTuple):
    """A corpus that was made to be predicted.

    Attributes:
      corpus: with one split, `test`.
      failed: whether an extractor failed for an utterance.
    """

    corpus: Corpus
    failed: bool


def is_corpus(source: str | Path) -> bool:
    """Returns whether a source is the name of a built-in corpus or the folder of a saved one."""
    return str(source) in NAMES or (local_path(source) / CARD_FILE).exists()


def rows_to_predict(data: Any) -> list[Row] | None:
    """Returns the utterances of a recording's manifest, subtitles or a dialogue; None for anything else.

    Raises:
      UserError: if such a source cannot be read.
    """
    if isinstance(data, str | Path):
        return None if is_corpus(data) or not Path(data).is_file() else rows_of(Path(data))
    listed = isinstance(data, Sequence) and len(data) > 0 and not isinstance(data[0], Conversation)
    return rows_of_utterances(data) if listed else None


def extract_rows(
    rows: Sequence[Row],
    card: Card,
    modalities: Sequence[str],
    *,
    name: str = DIALOGUE,
    given: Mapping[str, str] | None = None,
    cache: Cache | None = None,
    jobs: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> Extraction:
    """Makes a corpus to predict; warns of damaged recordings, extractors that fail and missing features.

    Args:
      rows: with the utterances of each conversation together and in order.
      card: of the training corpus.
      modalities: that the model reads.
      name: of the corpus to make.
      given: see `jmer.extract.prediction.trained_extractors`.
      cache, jobs, log: see `jmer.extract.work.extract_features`.

    Raises:
      UserError: if the features cannot be made as for training.
    """
    extractors = trained_extractors(card, modalities, given or {})
    corpus, extracted = extract_like_training(rows, card, extractors, name=name, cache=cache, jobs=jobs, log=log)
    for line in (*extracted.warnings, *extracted.failures, *missing_lines(extracted)):
        warn(line)
    return Extraction(corpus, bool(extracted.failures))
