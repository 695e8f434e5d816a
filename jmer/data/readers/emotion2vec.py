"""emotion2vec's features of a corpus: `train.npy` with the frames of all utterances, `train.lengths` and `train.emo`.

    train.npy       floats [frames of all utterances, width]
    train.lengths   the number of frames of each utterance, one a line; without this file, a row is an utterance
    train.emo       NAME LABEL of each utterance, one a line

A source is a folder with these files or a .npy file in it; validation and test splits are `valid.npy` and `test.npy`
with theirs. Names tell the conversations, as IEMOCAP's Ses01F_impro01_F000 do, and utterances keep the order of the
file. The release of IEMOCAP has one file for all five sessions, to be divided into folds by session.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jmer.data.corpus import Card, Conversation, Corpus, Features
from jmer.data.readers.conventions import split_named
from jmer.data.readers.labels import LabelNames, add_label_arguments, emotions_found, labels_of
from jmer.data.readers.pooling import NOTE, add_pool_argument, pooled
from jmer.data.readers.utterance_names import add_alone_argument, grouped, places
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError
from jmer.file_kinds import check_kind
from jmer.guard import guarded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of labels, of utterances without conversations and of frames."""
    add_label_arguments(parser, "those in the files, in alphabetical order unless they are a public corpus's")
    add_alone_argument(parser)
    add_pool_argument(parser)


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from the files of each split.

    Args:
      sources: .npy files, or folders with them.
      options: parsed flags of `add_arguments`; the corpus is in a temporary file beside `dest` until it is saved.

    Raises:
      UserError: naming the file that is missing or invalid.
    """
    files = _files(sources)
    lines = {split: _labelled_names(path.with_suffix(".emo")) for split, path in files.items()}
    found = emotions_found((label for pairs in lines.values() for _, label in pairs), options)
    names = LabelNames.of(options.emotions or found, options)
    features = {split: _features(path, len(lines[split])) for split, path in files.items()}
    splits = {
        split: _conversations(path.with_suffix(".emo"), lines[split], features[split], names, alone=options.alone)
        for split, path in files.items()
    }
    frames = isinstance(next(iter(features.values())), list)
    if frames and options.pool:
        splits = pooled(splits)
    card = Card(
        name=next(iter(files.values())).resolve().parent.name,
        widths={"audio": np.shape(next(iter(features.values()))[0])[-1]},
        emotions=names.of_corpus(labels_of(splits), options.merge),
        provenance=f"Converted from emotion2vec's {', '.join(path.name for path in files.values())}."
        f"{NOTE if frames and options.pool else ''}",
        synthetic=False,
        frames=frames and not options.pool,
    )
    options.dest.parent.mkdir(parents=True, exist_ok=True)
    return checked_corpus(splits, card, folder=options.dest.parent)


def _files(sources: Sequence[Path]) -> dict[str, Path]:
    paths = []
    for source in sources:
        if not source.exists():
            raise UserError(f"no file {source}: check its path")
        found = sorted(source.glob("*.npy")) if source.is_dir() else [source.with_suffix(".npy")]
        if not found:
            raise UserError(
                f"{source} contains no .npy file: give the folder with train.npy, train.lengths and train.emo"
            )
        paths += found
    files: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        split = "train" if len(set(paths)) == 1 else split_named(path.stem)
        if split is None or split in files:
            raise UserError(f"{path}: name the files of several splits train.npy, valid.npy and test.npy")
        files[split] = path
    return files


def _labelled_names(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if len(words) != 2:
            raise UserError(f"{path}, line {number} is '{line[:60]}': expected NAME LABEL")
        pairs.append((words[0], words[1]))
    if not pairs:
        raise UserError(f"{path} contains no utterance: get the file again")
    return pairs


def _lines(path: Path) -> list[str]:
    check_kind(path, "text")
    with guarded(str(path), "save it as UTF-8", described="is not a text in UTF-8"):
        return path.read_text(encoding="utf-8").splitlines()


def _features(path: Path, count: int) -> np.ndarray | list[np.ndarray]:
    """Returns the vectors `[N, D]` of utterances, or the frames `[F_i, D]` of each."""
    check_kind(path, "npy")
    with guarded(str(path), "save it again as floats", described="is truncated, or contains Python objects"):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind != "f":
        raise UserError(f"{path} is {values.dtype} of shape {values.shape}: expected floats [frames, width]")
    listed = path.with_suffix(".lengths")
    if not listed.exists():
        if len(values) != count:
            raise UserError(
                f"{path} has {len(values)} rows for {count} utterances: give {listed.name} if it has frames"
            )
        return np.asarray(values)
    lengths = [_length(listed, number, line) for number, line in enumerate(_lines(listed), start=1)]
    if len(lengths) != count or sum(lengths) != len(values):
        raise UserError(
            f"{listed} has {len(lengths)} utterances of {sum(lengths)} frames, but {path.name} has {len(values)} "
            f"frames and the .emo file {count} utterances: give files that were written together"
        )
    ends = np.cumsum(lengths)
    return [np.asarray(values[end - n : end], np.float32) for n, end in zip(lengths, ends, strict=True)]


def _length(path: Path, number: int, line: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", line):
        raise UserError(f"{path}, line {number} is '{line[:60]}': expected a number of frames")
    return int(line)


def _conversations(
    path: Path,
    lines: Sequence[tuple[str, str]],
    features: np.ndarray | list[np.ndarray],
    names: LabelNames,
    *,
    alone: bool,
) -> list[Conversation]:
    found = places(str(path), [name for name, _ in lines], alone=alone)
    return [
        Conversation(
            id=conversation,
            utterances=[lines[row][0] for row in rows],
            speakers=[found[row].speaker or conversation for row in rows],
            labels=np.array([_label(path, *lines[row], names) for row in rows], np.int32),
            sentences=[""] * len(rows),
            **_audio(features, rows),
        )
        for conversation, rows in grouped(found).items()
    ]


def _audio(features: np.ndarray | list[np.ndarray], rows: Sequence[int]) -> Mapping[str, Mapping]:
    if isinstance(features, list):
        values: Features = [features[row] for row in rows]
        available = np.array([len(frames) > 0 for frames in values])
    else:
        values, available = mark_missing(features[list(rows)])
    return {"features": {"audio": values}, "available": {"audio": available}}


def _label(path: Path, name: str, label: str, names: LabelNames) -> int:
    index = names.index(label)
    if index is None:
        raise UserError(f"{path}: label '{label}' of {name} is not one of {names.described()}: {names.remedy}")
    return index
