"""The features of the utterances of a manifest: what is in the cache is taken from there, the rest is computed.

Text is done in this process, where JAX is. Recordings are done one after the other, or several at once in processes of
their own: each is decoded once from its start, for all its utterances and all extractors.
"""

import concurrent.futures
import contextlib
import dataclasses
import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmer.errors import UserError
from jmer.extract import media, sound
from jmer.extract.cache import Cache, cache_key
from jmer.extract.hashes import sha256_of_file
from jmer.extract.manifest import Row
from jmer.extract.protocol import (
    Box,
    Extractor,
    Features,
    Missing,
    PictureExtractor,
    Pictures,
    SoundExtractor,
    TextExtractor,
    Turn,
    Words,
)

TEXTS_AT_ONCE = 256
"""Texts between two writes to the cache, so that what is lost by a kill is little."""
SECONDS_BETWEEN_LINES = 30.0
NO_TRANSCRIPT, NO_RECORDING = Missing("no transcript"), Missing("no recording")

Log = Callable[[str], None]


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
    """

    features: dict[str, Features] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    notes: Counter[str] = dataclasses.field(default_factory=Counter)

    def update(self, other: "Done") -> None:
        """Adds what came of other work."""
        self.features |= other.features
        self.warnings += other.warnings
        self.failures += other.failures
        self.notes += other.notes


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Features of the rows of a manifest.

    Attributes:
      features: modality -> features per row, or why there are none.
      warnings, failures: see `Done`.
    """

    features: Mapping[str, Sequence[Features]]
    warnings: Sequence[str]
    failures: Sequence[str]


def extract_features(
    rows: Sequence[Row], extractors: Mapping[str, Extractor], cache: Cache | None, *, jobs: int = 1, log: Log
) -> Extracted:
    """Computes the features of all rows.

    Args:
      rows: in the order of their conversations.
      extractors: modality -> extractor.
      cache: None = nothing is kept.
      jobs: recordings that are done at once.
      log: prints a line, on progress.

    Raises:
      UserError: if a recording or the cache cannot be read or written.
    """
    keys: dict[str, list[str | Missing]] = {}
    texts: dict[str, Words] = {}
    for modality, extractor in extractors.items():
        if isinstance(extractor, TextExtractor):
            words = _words(rows, extractor)
            keys[modality] = [w if isinstance(w, Missing) else _text_key(extractor, w) for w in words]
            for key, w in zip(keys[modality], words, strict=True):
                if not isinstance(key, Missing) and not isinstance(w, Missing):
                    texts[key] = w
        else:
            keys[modality] = [_place_key(extractor, row) for row in rows]
    wanted = dict.fromkeys(key for found in keys.values() for key in found if isinstance(key, str))
    done = Done({key: kept for key in wanted if cache and (kept := cache.load(key)) is not None})
    progress = _Progress(len(wanted), len(done.features), log)
    for extractor in extractors.values():
        if isinstance(extractor, TextExtractor):
            left = {key: words for key, words in texts.items() if key not in done.features}
            done.update(_extract_texts(extractor, left, cache, progress))
    recordings = list(_recordings(rows, extractors, keys, done.features))
    for found in _extract_recordings(recordings, cache, jobs):
        done.update(found)
        progress.add(len(found.features))
    progress.end()
    for note, count in done.notes.items():
        log(f"{note} in {count} recording{'s' if count > 1 else ''}")
    features = {
        modality: [key if isinstance(key, Missing) else done.features[key] for key in found]
        for modality, found in keys.items()
    }
    return Extracted(features, list(dict.fromkeys(done.warnings)), done.failures)


def _words(rows: Sequence[Row], extractor: TextExtractor) -> list[Words | Missing]:
    """Returns what an extractor of text is given of each row."""
    found: list[Words | Missing] = []
    before: list[Turn] = []
    conversation = None
    for row in rows:
        if row.conversation != conversation:
            conversation, before = row.conversation, []
        turn = Turn(row.speaker, row.transcript)
        given = tuple(before[-extractor.context :]) if extractor.context else ()
        found.append(Words(turn, given) if row.transcript else NO_TRANSCRIPT)
        if row.transcript:
            before.append(turn)
    return found


def _text_key(extractor: TextExtractor, words: Words) -> str:
    turns = [*words.before, words.turn]
    return cache_key(extractor.identity, turns=turns if extractor.reads_speakers else [turn.text for turn in turns])


def _place_key(extractor: Extractor, row: Row) -> str | Missing:
    if row.file is None:
        return NO_RECORDING
    box = row.box if isinstance(extractor, PictureExtractor) else None
    return cache_key(extractor.identity, file=sha256_of_file(row.file), start=row.start or 0.0, end=row.end, box=box)


def _extract_texts(
    extractor: TextExtractor, texts: Mapping[str, Words], cache: Cache | None, progress: "_Progress"
) -> Done:
    done, keys = Done(), list(texts)
    for start in range(0, len(keys), TEXTS_AT_ONCE):
        chosen = keys[start : start + TEXTS_AT_ONCE]
        for key, features in zip(chosen, extractor.batch([texts[key] for key in chosen]), strict=True):
            _keep(done, cache, key, features)
        progress.add(len(chosen))
    return done


def _recordings(
    rows: Sequence[Row],
    extractors: Mapping[str, Extractor],
    keys: Mapping[str, Sequence[str | Missing]],
    done: Mapping[str, Features],
) -> Iterator[Recording]:
    """Yields the work on each recording, without what is in the cache; what is asked for twice is there once."""
    wanted: dict[Path, dict[str, dict[str, Utterance]]] = {}
    for modality, extractor in extractors.items():
        for row, key in zip(rows, keys[modality], strict=True):
            if isinstance(extractor, TextExtractor) or row.file is None or isinstance(key, Missing) or key in done:
                continue
            found = wanted.setdefault(row.file, {}).setdefault(modality, {})
            end = math.inf if row.end is None else row.end
            found[key] = Utterance(key, row.start or 0.0, end, row.box)
    for file, by_modality in wanted.items():
        yield Recording(file, tuple((extractors[m], tuple(found.values())) for m, found in by_modality.items()))


def _extract_recordings(recordings: Sequence[Recording], cache: Cache | None, jobs: int) -> Iterator[Done]:
    if jobs == 1 or len(recordings) < 2:
        yield from (_extract_recording(recording, cache) for recording in recordings)
        return
    # Spawned, since JAX's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = min(jobs, len(recordings))
    with (
        _one_thread_each(),
        concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool,
    ):
        futures = [pool.submit(_extract_recording, recording, cache) for recording in recordings]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            # The recordings in hand are finished and kept; no other is begun.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _extract_recording(recording: Recording, cache: Cache | None) -> Done:
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
            _keep(done, cache, utterance.key, features)


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
            _keep(done, cache, utterance.key, features)


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


def _keep(done: Done, cache: Cache | None, key: str, features: Features) -> None:
    if not isinstance(features, Missing):
        features = np.asarray(features, np.float32)
        if not np.isfinite(features).all():
            features = Missing("features are not finite")
    done.features[key] = features
    if cache:
        cache.save(key, features)


def _shown(file: Path, utterance: Utterance) -> str:
    end = "the end" if utterance.end == math.inf else f"{utterance.end:.3f} s"
    return f"{file.name}, {utterance.start:.3f} to {end}"


def _ignore_interrupts() -> None:
    """Leaves it to the parent to stop, after the recording in hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Makes processes that are started meanwhile use one thread for linear algebra."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Progress:
    """Prints how much is done and how long the rest takes, every half minute."""

    def __init__(self, total: int, kept: int, log: Log):
        self.total, self.kept, self.log = total, kept, log
        self.done = 0
        self.start = self.last = time.monotonic()
        if kept:
            log(f"{kept} of {total} features are in the cache")

    def add(self, count: int) -> None:
        """Counts features that were computed."""
        self.done += count
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            left = (now - self.start) / max(self.done, 1) * (self.total - self.kept - self.done)
            self.log(f"{self.kept + self.done} of {self.total} features, {left:.0f} s left")

    def end(self) -> None:
        """Prints what was computed."""
        if self.done:
            self.log(f"computed {self.done} features in {time.monotonic() - self.start:.1f} s")


def check_recordings(rows: Sequence[Row], extractors: Mapping[str, Extractor]) -> dict[int, str]:
    """Returns position -> a line, for each row whose recording cannot be read, before any work is done."""
    if all(isinstance(extractor, TextExtractor) for extractor in extractors.values()):
        return {}
    defects: dict[Path, str] = {}
    for file in dict.fromkeys(row.file for row in rows if row.file):
        try:
            media.probe(file)
        except UserError as error:
            defects[file] = str(error)
    return {
        position: f"{row.line}: {defects[row.file]}"
        for position, row in enumerate(rows)
        if row.file and row.file in defects
    }
