"""Public feature pickles, and files of `torch.save` with the same content.

A tuple (or list) of dictionaries keyed by conversation and of lists of conversations, one per split:

    MMGCN, MM-DFN, DialogueRNN, DialogueCRN, MultiEMO's Speakers.pkl, M3NET, GraphSmile's IEMOCAP4 and CMU-MOSEI
                                 ids, speakers, labels, text, audio, visual, sentences, train, test[, extra]
    DialogueRNN's MELD           ids, speakers, labels, text, audio, sentences, train, test, sentiments
    SDT, GraphSmile's IEMOCAP    as MMGCN, with three more RoBERTa vectors after the text
    GraphSmile's MELD            as SDT, with sentiments after the labels
    COSMIC                       speakers, labels[, sentiments], RoBERTa (4), sentences, train, test, validation
    DialogueGCN's DailyDialog    speakers, text (1 or 4), acts, labels, train, test, validation

A layout is recognised by the types of its elements; --layout describes any other, and the error for an unknown one
proposes it. Two or more files together:

    COSMIC's and one of the others   (M3NET) the text and the splits of COSMIC's, the other's audio and visual features
    one of these and dictionaries    (MultiEMO) TextFeatures.pkl, AudioFeatures.pkl, VisualFeatures.pkl: a dictionary
                                     {conversation: vectors} gives the modality that its file's name contains

A dictionary of splits, with one row per utterance (MMSA, CMU-MultimodalSDK, MulT; padded sequences or vectors) or one
dictionary per conversation (CORECT):

    {train: {text, audio, vision, id, classification_labels | regression_labels | labels[, raw_text, ..._lengths]}, ...}
    {train: [{vid, speakers, labels, text, audio, visual, sentence}, ...], ...}

Each list of conversations is a split. Which one it is, say, in this order: --splits; the keys, if they begin with their
split (tr_0, test_17); the documented order of the layout, two lists being train and test; for another number of lists,
a published division (IEMOCAP's session 5 for testing, MELD's numbers, the sizes 659, 89 and 79 of EmoryNLP). Lists that
these do not tell, or on which the last two disagree, are refused. A validation list that training contains is taken out
of training.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.data.corpus import Card, Conversation, Corpus, feature_width
from jmer.data.emotions import EMORYNLP, IEMOCAP6, MELD
from jmer.data.readers import split_lists, utterance_dictionaries
from jmer.data.readers.attribute_columns import add_attribute_argument
from jmer.data.readers.labels import add_label_arguments
from jmer.data.readers.limits import reading
from jmer.data.readers.pickle_conversations import conversation
from jmer.data.readers.pickle_elements import FEATURES, NAMES, ROBERTA, is_integer, kind_of_element
from jmer.data.readers.pickle_layouts import Parts, add_layout_argument, parts_of
from jmer.data.readers.pooling import add_pool_argument
from jmer.data.readers.regression_labels import CONVERSIONS, add_regression_argument
from jmer.data.readers.restricted_unpickler import load_pickle
from jmer.data.readers.torch_archives import load_torch
from jmer.data.readers.utterance_names import add_alone_argument
from jmer.data.validation import checked_corpus
from jmer.errors import UserError
from jmer.file_kinds import kind_of
from jmer.modalities import MODALITIES
from jmer.warning import warn

ROBERTA_CHOICES = ("first", "mean", "concat")


@dataclasses.dataclass(frozen=True)
class Source:
    """The content of a file.

    Attributes:
      path: the file.
      parts: its elements.
      conversations: key in the file -> conversation.
      division: the keys of each split.
      emotions: names of the emotions if the dataset is recognised by keys, speakers and labels, else None.
      left_out: number of conversations that are in no split.
    """

    path: Path
    parts: Parts
    conversations: Mapping[Any, Conversation]
    division: split_lists.Division
    emotions: tuple[str, ...] | None
    left_out: int

    @property
    def described(self) -> str:
        unused = f", {self.left_out} conversations in no split left out" if self.left_out else ""
        return f"{self.path.name} ({self.parts.layout}, {self.parts.size} elements{unused})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for the emotions, the layout, the splits, the text features and the labels."""
    add_label_arguments(
        parser, "the six of IEMOCAP or the seven of MELD or EmoryNLP, if the file is recognised as one of these"
    )
    add_layout_argument(parser)
    split_lists.add_splits_argument(parser)
    parser.add_argument(
        "--roberta",
        choices=ROBERTA_CHOICES,
        default="first",
        help="the text features of a file with four RoBERTa vectors per utterance (default: first, the last layer)",
    )
    add_regression_argument(parser)
    add_attribute_argument(parser, "of a dictionary of splits, a key with a number per utterance")
    add_alone_argument(parser)
    add_pool_argument(parser)


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from one file, or from several that belong together.

    Args:
      sources: the files.
      options: parsed flags of `add_arguments`; a corpus with frames is in a temporary file beside `dest`.

    Raises:
      UserError: naming the file and the element that is invalid.
    """
    contents = {path: _load(path) for path in dict.fromkeys(map(Path, sources))}
    for path, content in contents.items():
        if utterance_dictionaries.is_one(content):
            if len(contents) > 1:
                raise UserError(f"{path} is a dictionary of splits: give no other source with it")
            return utterance_dictionaries.read(path, content, options)
    if options.attributes:
        raise UserError(
            f"--attributes: {next(iter(contents))} is no dictionary of splits, which alone has them: drop it"
        )
    features = _feature_files(contents)
    found = {path: parts_of(path, contents[path], options.layout) for path in contents if path not in features}
    # The lists of COSMIC's file count, so that --splits need not fit the other.
    fitting = [path for path, parts in found.items() if len(parts.lists) == len(options.splits or ())] or list(found)
    files = [
        _read_source(path, parts, features, options.splits if path in fitting else None, options)
        for path, parts in found.items()
    ]
    if not files:
        raise UserError(
            f"{', '.join(path.name for path in features)} have features only: give the file with speakers, labels and "
            "splits too"
        )
    source = files[0] if len(files) == 1 else _merged(files)
    return _corpus(source, [*(file.described for file in files), *(path.name for path in features)], options)


def _corpus(source: Source, described: Sequence[str], options: argparse.Namespace) -> Corpus:
    roberta = source.parts.has_roberta
    if options.roberta != "first" and not roberta:
        raise UserError(f"--roberta {options.roberta}: {source.path} has one text vector per utterance: drop the flag")
    regression = CONVERSIONS[options.regression].emotions if options.regression else None
    emotions = options.emotions or regression or source.emotions
    if emotions is None:
        raise UserError(
            f"{source.path} has neither the six emotions of IEMOCAP nor the seven of MELD or EmoryNLP: give them in "
            "the order of their labels with --emotions A,B,..."
        )
    if source.left_out:
        warn(f"{source.path}: {source.left_out} conversations are in no split and were left out")
    chosen = {split: [source.conversations[key] for key in keys] for split, keys in source.division.splits.items()}
    features = next((c.features for conversations in chosen.values() for c in conversations), {})
    text = f" Text: {options.roberta} of the RoBERTa vectors." if roberta else ""
    labels = f" Labels: {options.regression} of regression labels." if options.regression else ""
    card = Card(
        name=source.path.stem,
        widths={m: feature_width(features[m]) for m in MODALITIES if m in features},
        emotions=emotions,
        provenance=f"Converted from {' and '.join(described)}.{text}{labels}{source.division.note}",
        synthetic=False,
    )
    return checked_corpus(chosen, card)


def _load(path: Path) -> Any:
    kind = kind_of(path)
    return load_torch(path) if kind and kind.name == "torch" else load_pickle(path)


def _feature_files(contents: Mapping[Path, Any]) -> dict[Path, tuple[str, Mapping[Any, Any]]]:
    """Returns the files that are a dictionary of vectors: file -> modality and content."""
    found: dict[Path, tuple[str, Mapping[Any, Any]]] = {}
    for path, content in contents.items():
        if kind_of_element(content, set()) != "vectors" or not isinstance(content, dict):
            continue
        names = {NAMES[word] for word in NAMES if word in path.stem.lower() and NAMES[word] in MODALITIES}
        if len(names) != 1:
            raise UserError(f"{path} has vectors of conversations: rename it to contain one of {', '.join(MODALITIES)}")
        modality = names.pop()
        other = next((one for one, (name, _) in found.items() if name == modality), None)
        if other:
            raise UserError(f"{other} and {path} both have {modality} vectors by their names: give one of them")
        found[path] = modality, content
    return found


def _read_source(
    path: Path,
    parts: Parts,
    features: Mapping[Path, tuple[str, Mapping]],
    splits: Sequence[str] | None,
    options: argparse.Namespace,
) -> Source:
    if parts.named and splits:
        raise UserError("--layout names the splits already: drop --splits, or leave the names of lists to it")
    replaced = {modality: vectors for modality, vectors in features.values()}
    kept = {f: v for f, v in parts.fields.items() if not (f in ROBERTA and "text" in replaced)}
    parts = dataclasses.replace(parts, fields={**kept, **replaced})
    if not set(FEATURES) & set(parts.fields):
        raise UserError(
            f"{path} ({parts.layout}) has no features of utterances: give pickles {{conversation: vectors}} with it, "
            f"whose names contain {', '.join(MODALITIES)}"
        )
    given = parts.documented if parts.named else splits
    division = split_lists.divide(path, parts.lists, parts.documented, given)
    listed = dict.fromkeys(key for keys in division.splits.values() for key in keys)
    for field, values in parts.fields.items():
        missing = [key for key in listed if key not in values]
        if missing:
            where = next((one for one, (modality, _) in features.items() if modality == field), path)
            raise UserError(
                f"{where}: conversation '{missing[0]}' has no {field}{_and_more(missing)}: get the file again"
            )
    with reading(path):
        conversations = {
            key: conversation(path, key, parts.fields, roberta=options.roberta, regression=options.regression)
            for key in listed
        }
    return Source(
        path=path,
        parts=parts,
        conversations=conversations,
        division=division,
        emotions=_known_emotions(conversations, one_hot=_has_one_hot_speakers(parts)),
        left_out=len(parts.fields["labels"].keys() - listed.keys()),
    )


def _has_one_hot_speakers(parts: Parts) -> bool:
    return "speakers" in parts.fields and kind_of_element(parts.fields["speakers"], set()) == "vectors"


def _known_emotions(conversations: Mapping[Any, Conversation], *, one_hot: bool) -> tuple[str, ...] | None:
    highest = max((c.labels.max(initial=-1) for c in conversations.values()), default=-1)
    if highest == len(IEMOCAP6) - 1 and all(str(key).startswith("Ses0") for key in conversations):
        return IEMOCAP6
    if highest == len(MELD) - 1 and one_hot:
        # The keys of EmoryNLP are SEASON_EPISODE_SCENE, those of MELD numbers.
        if all(str(key).replace("_", "").isdigit() and str(key).count("_") == 2 for key in conversations):
            return EMORYNLP
        return MELD if all(is_integer(key) for key in conversations) else None
    return None


def _merged(files: Sequence[Source]) -> Source:
    """Returns the other file with the text and the splits of COSMIC's."""
    is_cosmic = [file.parts.layout == "COSMIC" for file in files]
    if sorted(is_cosmic) != [False, True]:
        raise UserError(
            f"give one feature pickle, or two of which one is COSMIC's, not {', '.join(f.described for f in files)}"
        )
    cosmic, other = files[is_cosmic.index(True)], files[is_cosmic.index(False)]
    names = f"{cosmic.path} and {other.path}"
    unmatched = sorted(map(str, cosmic.conversations.keys() ^ other.conversations.keys()))
    if unmatched:
        raise UserError(f"{names} have different conversations: only one has '{unmatched[0]}'{_and_more(unmatched)}")
    differing = [
        key
        for key, one in other.conversations.items()
        if not np.array_equal(one.labels, cosmic.conversations[key].labels)
    ]
    if differing:
        raise UserError(f"{names} have different labels in conversation '{differing[0]}'{_and_more(differing)}")
    tests = [set(file.division.splits.get("test", ())) for file in (cosmic, other)]
    moved = sorted(map(str, tests[0] ^ tests[1]))
    if moved:
        raise UserError(f"{names} have different test splits: conversation '{moved[0]}'{_and_more(moved)}")
    conversations = {
        key: dataclasses.replace(
            one,
            features={**one.features, "text": cosmic.conversations[key].features["text"]},
            available={**one.available, "text": cosmic.conversations[key].available["text"]},
        )
        for key, one in other.conversations.items()
    }
    return dataclasses.replace(other, parts=cosmic.parts, conversations=conversations, division=cosmic.division)


def _and_more(items: Sequence) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""
