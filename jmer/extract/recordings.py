"""The features of one recording, which is decoded once for all its utterances and extractors.

This is what processes of their own do: it imports neither JAX nor corpora, so that they start soon and stay small.
"""

import contextlib
import dataclasses
import math
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmer.errors import UserError
from jmer.extract import media, sound
from jmer.extract.cache import Cache
from jmer.extract.protocol import (
    Box,
    Extractor,
    Features,
    Missing,
    Noted,
    PictureExtractor,
    Pictures,
    SoundExtractor,
)


class Utterance(NamedTuple):
    """What features of a recording are asked for.

    Attributes:
      key: in the cache.
      start, end: in seconds; an infinite end is the recording's.
      box: of the speaker's face, for extractors of pictures.
    """

    key: str
    start: float
    end: float
    box: Box | None


class Recording(NamedTuple):
    """The work on one recording: for each extractor, the utterances that are not in the cache."""

    file: Path
    wanted: tuple[tuple[Extractor, tuple[Utterance, ...]], ...]


@dataclasses.dataclass
class Done:
    """What came of some work.

    Attributes:
      features: key -> features, or why there are none.
      warnings: lines on recordings that are damaged or clipped.
      failures: lines on extractors that ended with an error.
      notes: what was converted -> in how many recordings.
      counts: what extractors noted -> how often.
    """

    features: dict[str, Features] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    notes: Counter[str] = dataclasses.field(default_factory=Counter)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def update(self, other: "Done") -> None:
        """Adds what came of other work."""
        self.features |= other.features
        self.warnings += other.warnings
        self.failures += other.failures
        self.notes += other.notes
        self.counts += other.counts

    def keep(self, key: str, features: Features | Noted, cache: Cache | None) -> None:
        """Adds features, as float32, and keeps them in a cache. Raises UserError if it cannot be written."""
        if isinstance(features, Noted):
            self.counts[features.note] += features.times
            features = features.features
        if not isinstance(features, Missing):
            features = np.asarray(features, np.float32)
            if not np.isfinite(features).all():
                features = Missing("features are not finite")
        self.features[key] = features
        if cache:
            cache.save(key, features)


def extract_recording(recording: Recording, cache: Cache | None) -> Done:
    """Computes what is wanted of a recording.

    Raises:
      UserError: if the recording cannot be read, or the cache cannot be written.
    """
    done = Done()
    for extractor, utterances in recording.wanted:
        if isinstance(extractor, SoundExtractor):
            _extract_sound(extractor, recording.file, utterances, cache, done)
        elif isinstance(extractor, PictureExtractor):
            _extract_pictures(extractor, recording.file, utterances, cache, done)
    return done


def _extract_sound(
    extractor: SoundExtractor, file: Path, utterances: Sequence[Utterance], cache: Cache | None, done: Done
) -> None:
    recorded = media.read_sound(file)
    done.notes.update(recorded.notes)
    if recorded.defect and len(recorded.samples):  # a recording without sound has nothing that is damaged
        done.warnings.append(f"{file.name}: {recorded.defect}")
    for utterance in utterances:
        cut = sound.cut(recorded, utterance.start, utterance.end, extractor.shortest)
        if cut.warning:
            done.warnings.append(f"{_shown(file, utterance)}: {cut.warning}")
        with _reported(extractor, file, utterance, done):
            features = cut.samples if isinstance(cut.samples, Missing) else extractor(cut.samples)
            done.keep(utterance.key, features, cache)


def _extract_pictures(
    extractor: PictureExtractor, file: Path, utterances: Sequence[Utterance], cache: Cache | None, done: Done
) -> None:
    spans = [(utterance.start, utterance.end) for utterance in utterances]
    for clip in media.read_pictures(file, spans, extractor.pictures_per_second):
        utterance, images = utterances[clip.index], clip.images
        if clip.note:
            done.warnings.append(f"{_shown(file, utterance)}: {clip.note}")
        box = Box(*(clip.scale * value for value in utterance.box)) if utterance.box else None
        with _reported(extractor, file, utterance, done):
            features = images if isinstance(images, Missing) else extractor(Pictures(images, box))
            done.keep(utterance.key, features, cache)


@contextlib.contextmanager
def _reported(extractor: Extractor, file: Path, utterance: Utterance, done: Done) -> Iterator[None]:
    """Turns an extractor's error into a line and missing features, so that the other utterances are done."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # what networks and their libraries raise, nobody has declared
        reason = " ".join(str(error).split()) or type(error).__name__
        done.failures.append(f"{_shown(file, utterance)}: extractor '{extractor.name}' failed: {reason}")
        done.features[utterance.key] = Missing("extractor failed")


def _shown(file: Path, utterance: Utterance) -> str:
    end = "the end" if utterance.end == math.inf else f"{utterance.end:.3f} s"
    return f"{file.name}, {utterance.start:.3f} to {end}"


def ignore_interrupts() -> None:
    """Leaves it to the parent to stop, after the recording in hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
