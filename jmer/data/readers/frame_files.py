"""Corpora with frames: a table with one row per utterance, and for each modality a folder with one .npy per utterance.

    python -m jmer.data.convert frames iemocap.csv corpora/iemocap4_frames --text bert/ --audio emotion2vec/ \\
        --conversation dialogue --utterance name --speaker speaker --split split \\
        --label emotion --emotions happy,sad,neutral,angry

The file FOLDER/UTTERANCE.npy holds floats `[frames, width]`, which is what emotion2vec writes with `--granularity
frame`. An utterance without a file lacks that modality. The table is npz, parquet or csv and its columns are mapped as
`python -m jmer.data.convert table --help` says; columns of features count for nothing here.

However large the corpus, a few hundred MB of it are in memory while it is written, for which the disk needs room twice.
Training holds its features in memory: 4 bytes x utterances x frames x width, about 4 GB for IEMOCAP in emotion2vec.
"""

import argparse
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jmer.batch import MODALITIES
from jmer.data.corpus import Card, Conversation, Corpus
from jmer.data.readers.table import COLUMN_FLAGS, add_mapping_arguments, read_mapping, read_splits
from jmer.data.validation import checked_corpus
from jmer.errors import UserError

FLAGS = tuple(flag for flag in COLUMN_FLAGS if flag not in MODALITIES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that map columns and name folders."""
    add_mapping_arguments(parser, FLAGS)
    for modality in MODALITIES:
        parser.add_argument(
            f"--{modality}", type=Path, metavar="FOLDER", help=f"the folder of the utterances' {modality} frames"
        )


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads utterances from tables and their frames from folders.

    Args:
      sources: .npz, .parquet or .csv files with the same columns; their rows follow each other.
      options: what `add_arguments` parses; `dest`, beside which the corpus lies until it is saved.

    Raises:
      UserError: naming the file, column or folder at fault, and what there is instead.
    """
    # A preset or a YAML file may be one of a table with features; the folders take their place.
    columns = dataclasses.replace(read_mapping(options, FLAGS), **dict.fromkeys(MODALITIES))
    folders = {m: getattr(options, m) for m in MODALITIES if getattr(options, m)}
    _check_flags(columns.utterance, folders)
    splits = read_splits(sources, columns, predict_only=options.predict_only)
    names = [name for conversations in splits.values() for c in conversations for name in c.utterances]
    _check_names(names, columns.utterance, sources[0])
    files = {m: _Files.find(m, folder, names) for m, folder in folders.items()}
    card = Card(
        name=options.preset or sources[0].stem,
        widths={m: found.width for m, found in files.items()},
        emotions=columns.emotions,
        provenance=f"Converted from the table {', '.join(source.name for source in sources)}, frames: "
        f"{', '.join(f'{m} from {folder.name}' for m, folder in folders.items())}.",
        synthetic=False,
        frames=True,
    )
    splits = {split: [_with_frames(c, files) for c in conversations] for split, conversations in splits.items()}
    options.dest.parent.mkdir(parents=True, exist_ok=True)
    return checked_corpus(splits, card, for_training=not options.predict_only, folder=options.dest.parent)


@dataclasses.dataclass(frozen=True)
class _Files:
    """One modality's files.

    Attributes:
      modality: its name.
      paths: utterance -> file, of those that have one.
      width: of the frames.
      model: the file that `width` is from.
    """

    modality: str
    paths: Mapping[str, Path]
    width: int
    model: Path

    @classmethod
    def find(cls, modality: str, folder: Path, names: Sequence[str]) -> "_Files":
        paths = {name: folder / f"{name}.npy" for name in names}
        present = {name: path for name, path in paths.items() if path.is_file()}
        if not present:
            raise UserError(
                f"{folder} has no {modality} frames of any of the {len(names)} utterances, no {names[0]}.npy for one: "
                "name the files after the utterances"
            )
        model = next(iter(present.values()))
        return cls(modality, present, _array(model).shape[1], model)

    def load(self, name: str) -> np.ndarray:
        """Returns an utterance's frames, float32 `[F, D]`; `[0, D]` where it has no file."""
        if name not in self.paths:
            return np.zeros((0, self.width), np.float32)
        path = self.paths[name]
        frames = _array(path)
        if not len(frames):
            raise UserError(f"{path} holds no frame: remove it, and the utterance counts as without {self.modality}")
        if frames.shape[1] != self.width:
            raise UserError(
                f"{path} is {frames.shape[1]} wide but {self.model} is {self.width} wide: extract all with one model"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            frames = frames.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(frames).all(1))
        if wrong.size:
            raise UserError(
                f"{path} holds NaN or infinity in frame {wrong[0] + 1} of {len(frames)}: extract it again, or remove "
                f"it, and the utterance counts as without {self.modality}"
            )
        return frames


class _Frames(Sequence):
    """The frames of a conversation's utterances, loaded whenever they are asked for."""

    def __init__(self, files: _Files, names: Sequence[str]):
        self._files, self._names = files, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, position: int) -> np.ndarray:
        return self._files.load(self._names[position])


def _with_frames(conversation: Conversation, files: Mapping[str, _Files]) -> Conversation:
    names = conversation.utterances
    return dataclasses.replace(
        conversation,
        features={m: _Frames(found, names) for m, found in files.items()},
        available={m: np.array([name in found.paths for name in names]) for m, found in files.items()},
    )


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is cut short, no .npy file, or holds Python objects, which could run code: save it again as floats"
        ) from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} holds several arrays: save one array of frames with numpy.save")
    if array.ndim != 2 or array.dtype.kind != "f":
        raise UserError(f"{path} is {array.dtype} of shape {array.shape}, but must be floats [frames, width]")
    return array


def _check_flags(utterance: str | None, folders: Mapping[str, Path]) -> None:
    if not utterance:
        raise UserError("no column for the utterance, after which the files are named: give --utterance COLUMN")
    if not folders:
        raise UserError("no folder of frames: give --text, --audio or --visual FOLDER")
    for modality, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: --{modality} names the folder of the utterances' .npy files")


def _check_names(names: Sequence[str], column: str, source: Path) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"{source}: column '{column}' names {count} utterances '{name}', which would share one file: "
                "give each a name of its own"
            )
