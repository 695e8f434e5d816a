"""Features of new recordings and dialogues, made by the extractors of the corpus that a run was trained on."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jmer.batch import UNLABELLED
from jmer.data.corpus import Card, Corpus
from jmer.data.extractors import GIVEN, mismatch
from jmer.data.readers.labels import LabelNames
from jmer.errors import UserError
from jmer.extract.cache import Cache
from jmer.extract.corpus import identities, make_corpus_of
from jmer.extract.manifest import Row
from jmer.extract.protocol import Extractor
from jmer.extract.registry import make_extractor
from jmer.extract.work import Extracted, extract_features
from jmer.warning import warn


def trained_extractors(card: Card, modalities: Sequence[str], given: Mapping[str, str]) -> dict[str, Extractor]:
    """Returns the extractors that made the features of a training corpus: modality -> extractor.

    Args:
      card: of the training corpus.
      modalities: that the model reads.
      given: modality -> extractor as a command line names it, where its files are elsewhere now.

    Raises:
      UserError: if jmer did not extract the features, or an extractor is not the same now.
    """
    unknown = [modality for modality in modalities if modality not in card.extractors]
    if unknown:
        raise UserError(
            f"the {unknown[0]} features of corpus '{card.name}' were not extracted by jmer, which cannot make such "
            "features: train on a corpus that `jmer extract` made, or give features as a corpus (--corpus)"
        )
    found = {}
    for modality in modalities:
        known = card.extractors[modality]
        try:
            found[modality] = make_extractor(given.get(modality, known[GIVEN]), modality)
            found[modality].check()
        except UserError as error:
            raise UserError(
                f"{error.args[0]}; if the files of extractor '{known['extractor']}' are elsewhere now, give "
                f"--{modality} {known['extractor']}:PATH"
            ) from error
        differing = mismatch(card.extractors, {modality: found[modality].identity}, modality)
        if differing:
            raise UserError(
                f"the extractor of {modality} features is not the one of training ({differing}): give the same one, "
                f"--{modality} {known[GIVEN]}"
            )
    return found


def extract_like_training(
    rows: Sequence[Row],
    card: Card,
    extractors: Mapping[str, Extractor],
    *,
    name: str,
    cache: Cache | None = None,
    jobs: int = 1,
    log: Callable[[str], None],
) -> tuple[Corpus, Extracted]:
    """Makes a corpus to predict, with the emotions of a training corpus.

    Labels that are none of the emotions are left out, with a warning.

    Args:
      rows: with the utterances of each conversation together and in order.
      card: of the training corpus.
      extractors: its own, see `trained_extractors`.
      name: of the corpus to make.
      cache, jobs, log: as for `jmer.extract.work.extract_features`.

    Raises:
      UserError: if a recording cannot be read.
    """
    names = LabelNames(card.emotions)
    found = [names.index(row.label) for row in rows]
    unknown = sorted({row.label for row, label in zip(rows, found, strict=True) if label is None})
    if unknown:
        warn(f"the labels {', '.join(unknown)} are none of the run's emotions, and are left out")
    labels = [UNLABELLED if label is None else label for label in found]
    extracted = extract_features(rows, extractors, cache, jobs=jobs, log=log)
    together = [dataclasses.replace(row, split="test") for row in rows]
    corpus = make_corpus_of(together, labels, card.emotions, extracted, identities(extractors), name=name)
    return corpus, extracted
