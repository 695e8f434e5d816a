"""The features of the utterances of a manifest: what is in the cache is taken from there, the rest is computed.

Text is done in this process, where JAX is. Recordings are done one after the other, or several at once in processes of
their own: each is decoded once from its start, for all its utterances and all extractors.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from jmer.errors import UserError
from jmer.extract import media
from jmer.extract.cache import Cache, cache_key
from jmer.extract.hashes import sha256_of_file
from jmer.extract.manifest import Row
from jmer.extract.protocol import Extractor, Features, Missing, PictureExtractor, TextExtractor, Turn, Words
from jmer.extract.recordings import Done, Recording, Utterance, extract_recording, ignore_interrupts

TEXTS_AT_ONCE = 256
"""Texts between two writes to the cache, so that what is lost by a kill is little."""
SECONDS_BETWEEN_LINES = 30.0
NO_TRANSCRIPT, NO_RECORDING = Missing("no transcript"), Missing("no recording")

Log = Callable[[str], None]


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
    for note, count in done.counts.items():
        log(f"{count} {note}")
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
            done.keep(key, features, cache)
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
        yield from (extract_recording(recording, cache) for recording in recordings)
        return
    # Spawned, since JAX's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = min(jobs, len(recordings))
    with (
        _one_thread_each(),
        concurrent.futures.ProcessPoolExecutor(workers, context, initializer=ignore_interrupts) as pool,
    ):
        futures = [pool.submit(extract_recording, recording, cache) for recording in recordings]
        left = {future: recording.file for future, recording in zip(futures, recordings, strict=True)}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
                del left[future]
        except concurrent.futures.process.BrokenProcessPool as error:
            files = ", ".join(str(file) for file in left.values())
            raise UserError(
                f"a process ended while it decoded one of {files}: memory was short (choose fewer --jobs), or the file "
                "is damaged (find it with --jobs 1)"
            ) from error
        except BaseException:
            # The recordings in hand are finished and kept; no other is begun.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


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
