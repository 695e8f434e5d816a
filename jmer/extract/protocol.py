"""What an extractor of features is: what it is given of an utterance, what it returns, and what identifies it."""

import abc
import dataclasses
import functools
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jmer.extract.extras import require
from jmer.extract.hashes import sha256_of_files

RATE = 16_000
"""Samples per second of the sound that extractors are given."""

DECODING = 1
"""Revision of the code that decodes recordings: increased whenever extractors are given other sound or pictures."""


class Missing(NamedTuple):
    """Why an utterance has no features of a modality, e.g. "too short: 18 ms"."""

    reason: str


class Turn(NamedTuple):
    """Who said what."""

    speaker: str
    text: str


class Words(NamedTuple):
    """An utterance for an extractor of text.

    Attributes:
      turn: the utterance; its text is not empty.
      before: the last turns before it in its conversation, oldest first, at most as many as the extractor's `context`.
    """

    turn: Turn
    before: tuple[Turn, ...] = ()


class Box(NamedTuple):
    """Where a face is in a picture, in pixels from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclasses.dataclass(frozen=True)
class Pictures:
    """An utterance for an extractor of pictures.

    Attributes:
      images: uint8 `[F, H, W, 3]`, red, green, blue, `F > 0`; large ones come smaller than they are in the recording.
      box: of the speaker's face in these images; None = unknown.
    """

    images: np.ndarray
    box: Box | None = None


Features = np.ndarray | Missing
"""Of one utterance and modality: float32 `[D]`, or the frames `[F, D]` of an extractor that has `frames`."""


class Noted(NamedTuple):
    """Features, and what the summary of an extraction counts.

    Attributes:
      features: of one utterance and modality.
      note: what is counted, e.g. "pictures have several faces, of which the largest was taken".
      times: how often.
    """

    features: Features
    note: str
    times: int = 1


@dataclasses.dataclass(frozen=True)
class Extractor(abc.ABC):
    """Makes the features of one modality of one utterance after the other; nothing is kept from one to the next.

    A subclass is a frozen dataclass. Its fields are its options, with a default and an entry in the section
    "Attributes" of its docstring each; the first may be what follows the colon in `NAME:ARGUMENT,OPTION=VALUE`. What is
    loaded (a network, a tokenizer) is a `functools.cached_property`, loaded when it is first used, in the process that
    uses it. Importing its module imports no package of an extra.

    Attributes:
      name: as on the command line.
      modality: `text`, `audio` or `visual`.
      licence: of what the features come from, one line; it is recorded on the corpus' card.
      revision: of the code: increased whenever the same input gives other features.
      extra: of setup.cfg, which installs what the extractor needs; empty = jmer alone.
      imports: modules of packages that the extra installs, imported to see whether it is there.
      packages: distributions whose version the features depend on, whatever the options; see `versions`.
      poolings: values of the option `pooling`, where there is one: how the frames of an utterance become a vector; of
        which none leaves them frames.
    """

    name: ClassVar[str]
    modality: ClassVar[str]
    licence: ClassVar[str]
    revision: ClassVar[int] = 1
    extra: ClassVar[str] = ""
    imports: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()
    poolings: ClassVar[tuple[str, ...]] = ("mean", "none")

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Number of columns `D`. Raises UserError if a file that says it is missing or of another kind."""

    def __post_init__(self):
        if self._pooling not in self.poolings:
            raise ValueError(f"pooling is '{self._pooling}': expected {', '.join(self.poolings)}")

    @property
    def frames(self) -> bool:
        """Whether an utterance is a sequence of frames rather than one vector."""
        return self._pooling == "none"

    @property
    def _pooling(self) -> str:
        return getattr(self, "pooling", self.poolings[0])

    @property
    def files(self) -> Sequence[Path]:
        """The files that the features depend on, such as a checkpoint. Raises UserError if one is missing."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Returns what the features depend on besides files and packages: the options that are no paths."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if not isinstance(value, Path | None)}

    def versions(self) -> dict[str, str]:
        """Returns package -> version of those that the features depend on."""
        return {name: importlib.metadata.version(name) for name in self.packages}

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What makes the features of two extractors comparable, in values that JSON has; see `jmer.data.extractors`.

        Raises:
          UserError: if a file or a package is missing.
        """
        files = self.files
        return {
            "extractor": self.name,
            "revision": self.revision,
            **self.settings(),
            "width": self.width,
            "frames": self.frames,
            **({"sha256": sha256_of_files(files)} if files else {}),
            "packages": self.versions(),
            "licence": self.licence,
        }

    def check(self) -> None:
        """Raises UserError, with the remedy, if a package or a file is missing or of another kind."""
        for module in self.imports:
            self.require(module)
        _ = self.identity

    def require(self, module: str) -> ModuleType:
        """Imports a module of a package that the extractor's extra installs.

        Raises:
          UserError: naming the extra, if the package is not installed.
        """
        return require(module, self.extra, f"extractor '{self.name}'")

    def __getstate__(self) -> dict[str, Any]:
        # What has been loaded stays in its process.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class TextExtractor(Extractor):
    """Makes features of what is said."""

    modality = "text"

    @property
    def context(self) -> int:
        """How many turns before an utterance its features depend on."""
        return 0

    @property
    def reads_speakers(self) -> bool:
        """Whether features depend on the names of the speakers."""
        return False

    @abc.abstractmethod
    def __call__(self, words: Words) -> Features | Noted:
        """Returns the features of one utterance."""

    def batch(self, several: Sequence[Words]) -> list[Features | Noted]:
        """Returns the features of several utterances, each as if it were alone."""
        return [self(words) for words in several]


class SoundExtractor(Extractor):
    """Makes features of how it is said."""

    modality = "audio"

    def settings(self) -> dict[str, Any]:
        """Returns what features depend on, see `Extractor`; among it how recordings are decoded."""
        return super().settings() | {"decoding": DECODING}

    @property
    @abc.abstractmethod
    def shortest(self) -> float:
        """Seconds of sound that it needs; shorter utterances are not given to it."""

    @abc.abstractmethod
    def __call__(self, sound: np.ndarray) -> Features | Noted:
        """Returns the features of one utterance.

        Args:
          sound: float32 `[S]`, one channel, `RATE` samples per second, within about -1 and 1, finite, not silent.
        """


class PictureExtractor(Extractor):
    """Makes features of what the speaker looks like."""

    modality = "visual"

    def settings(self) -> dict[str, Any]:
        """Returns what features depend on, see `Extractor`; among it how recordings are decoded."""
        return super().settings() | {"decoding": DECODING}

    @property
    @abc.abstractmethod
    def pictures_per_second(self) -> float:
        """How many pictures per second of the recording it is given."""

    @abc.abstractmethod
    def __call__(self, pictures: Pictures) -> Features | Noted:
        """Returns the features of one utterance."""
