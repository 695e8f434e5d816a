"""Corpora with frames: a table with one row per utterance, and a folder per modality with one .npy file per utterance.

    python -m jmer.data.convert frames iemocap.csv corpora/iemocap4_frames --text bert/ --audio emotion2vec/ \\
        --conversation dialogue --utterance name --speaker speaker --split split \\
        --label emotion --emotions happy,sad,neutral,angry

The file FOLDER/UTTERANCE.npy contains floats `[frames, width]`, as emotion2vec writes them with `--granularity frame`.
An utterance without a file lacks that modality. The table is npz, parquet or csv, and its columns are mapped as
`python -m jmer.data.convert table --help` describes; columns of features are ignored.

Conversion needs a few hundred MB of memory whatever the size of the corpus, and twice its size on the disk. Training
keeps the features in memory: 4 bytes x utterances x frames x width, about 4 GB for IEMOCAP in emotion2vec.
"""

import argparse
import dataclasses
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from jmer.data.corpus import Card, Conversation, Corpus
from jmer.data.readers.attribute_columns import scales_of
from jmer.data.readers.mapping import COLUMN_FLAGS, add_mapping_arguments, read_mapping
from jmer.data.readers.table import read_splits
from jmer.data.validation import checked_corpus
from jmer.errors import UserError
from jmer.file_kinds import check_kind
from jmer.guard import guarded
from jmer.modalities import MODALITIES

FLAGS = tuple(flag for flag in COLUMN_FLAGS if flag not in MODALITIES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a mapping of columns and of the folders."""
    add_mapping_arguments(parser, FLAGS)
    for modality in MODALITIES:
        parser.add_argument(f"--{modality}", type=Path, metavar="FOLDER", help=f"the folder of the {modality} frames")


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from tables of utterances and folders of their frames.

    Args:
      sources: .npz, .parquet or .csv files with the same columns, whose rows are concatenated.
      options: parsed flags of `add_arguments`; the corpus is in a temporary file beside `dest` until it is saved.

    Raises:
      UserError: naming the file, column or folder that is missing or invalid.
    """
    # A preset or a YAML file may name columns of features, which the folders replace.
    columns = dataclasses.replace(read_mapping(options, FLAGS), text=None, audio=None, visual=None)
    folders = {m: getattr(options, m) for m in MODALITIES if getattr(options, m)}
    if not columns.utterance:
        raise UserError("no column for the utterance, which gives the names of the files: give --utterance COLUMN")
    _check_folders(folders)
    splits, emotions, folds = read_splits(sources, columns, options)
    names = [name for conversations in splits.values() for c in conversations for name in c.utterances]
    _check_names(names, columns.utterance, sources[0])
    files = {m: _Files.find(m, folder, names) for m, folder in folders.items()}
    card = Card(
        name=options.preset or sources[0].stem,
        widths={m: found.width for m, found in files.items()},
        emotions=emotions,
        provenance=f"Converted from the table {', '.join(source.name for source in sources)}, frames: "
        f"{', '.join(f'{m} from {folder.name}' for m, folder in folders.items())}.",
        synthetic=False,
        frames=True,
        attributes=scales_of(columns.attributes),
    )
    framed = {split: [_with_frames(c, files) for c in conversations] for split, conversations in splits.items()}
    options.dest.parent.mkdir(parents=True, exist_ok=True)
    return checked_corpus(framed, card, for_training=not options.predict_only, folder=options.dest.parent, folds=folds)


@dataclasses.dataclass(frozen=True)
class _Files:
    """The files of a modality.

    Attributes:
      modality: its name.
      paths: utterance -> file, for the utterances that have one.
      width: width of the frames.
      first: the file that `width` comes from.
    """

    modality: str
    paths: Mapping[str, Path]
    width: int
    first: Path

    @classmethod
    def find(cls, modality: str, folder: Path, names: Sequence[str]) -> "_Files":
        paths = {name: folder / f"{name}.npy" for name in names}
        with guarded(str(folder), "name the files after the utterances"):
            present = {name: path for name, path in paths.items() if path.is_file()}
        if not present:
            raise UserError(
                f"{folder} has no {modality} frames for any of the {len(names)} utterances, for example no "
                f"{names[0]}.npy: name the files after the utterances"
            )
        first = next(iter(present.values()))
        return cls(modality, present, _array(first).shape[1], first)

    def load(self, name: str) -> np.ndarray:
        """Returns the frames of an utterance, float32 `[F, D]`; `[0, D]` if it has no file."""
        if name not in self.paths:
            return np.zeros((0, self.width), np.float32)
        path = self.paths[name]
        frames = _array(path)
        if not len(frames):
            raise UserError(f"{path} contains no frames: remove it if the utterance has no {self.modality}")
        if frames.shape[1] != self.width:
            raise UserError(
                f"{path} has width {frames.shape[1]} but {self.first} has {self.width}: extract all with one model"
            )
        with np.errstate(over="ignore"):  # values beyond float32 become infinite
            frames = np.array(frames, np.float32)
        wrong = np.flatnonzero(~np.isfinite(frames).all(1))
        if wrong.size:
            raise UserError(
                f"{path} contains NaN or infinity in frame {wrong[0] + 1} of {len(frames)}: extract it again, or "
                f"remove it to leave the utterance without {self.modality}"
            )
        return frames


class _Frames(Sequence[np.ndarray]):
    """The frames of the utterances of a conversation, loaded on access."""

    def __init__(self, files: _Files, names: Sequence[str]):
        self._files, self._names = files, names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, position: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, position: slice) -> "_Frames": ...

    def __getitem__(self, position: int | slice) -> "np.ndarray | _Frames":
        if isinstance(position, slice):
            return _Frames(self._files, self._names[position])
        return self._files.load(self._names[position])


def _with_frames(conversation: Conversation, files: Mapping[str, _Files]) -> Conversation:
    names = conversation.utterances
    return dataclasses.replace(
        conversation,
        features={m: _Frames(found, names) for m, found in files.items()},
        available={m: np.array([name in found.paths for name in names]) for m, found in files.items()},
    )


def _array(path: Path) -> np.ndarray:
    with guarded(str(path), "save it again as floats", described="is truncated, damaged or not a .npy file"):
        if zipfile.is_zipfile(path):
            raise UserError(f"{path} contains several arrays: save one array of frames with numpy.save")
        try:
            # Mapped, since a forged header could ask for any amount of memory.
            array = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError) as error:
            check_kind(path, "npy", "npz")
            if "Python objects" in str(error):
                raise UserError(f"{path} contains Python objects, which could run code: save it as floats") from error
            raise
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        raise UserError(f"{path} is {array.dtype} of shape {array.shape}: expected floats [frames, width]")
    return array


def _check_folders(folders: Mapping[str, Path]) -> None:
    if not folders:
        raise UserError("no folder of frames: give --text, --audio or --visual FOLDER")
    for modality, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: --{modality} expects the folder of the .npy files")


def _check_names(names: Sequence[str], column: str, source: Path) -> None:
    for name in names:
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(
                f"{source}: column '{column}' has the name {name!r}, whose file would be outside the folder of frames: "
                "give it another name"
            )
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"{source}: column '{column}' has the name '{name}' for {count} utterances, which would have the same "
                "file: give each utterance a name of its own"
            )
