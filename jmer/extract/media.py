"""What a recording contains: its sound as one array, its pictures utterance by utterance.

Each is decoded once, from its first packet to its last: what is decoded after seeking differs from it by the state of
the decoder and of the resampler, so that the features of an utterance would depend on how it was reached. Time 0 is the
one that players show.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.errors import UserError
from jmer.extract.protocol import RATE, Missing
from jmer.extract.tracks import TOLERANCE, Track, libav, opened, picture_track, sound_track

WIDEST = 640
"""Pixels of the longer side of pictures that are given to extractors as they are."""

MOST_PICTURES = 300
"""Of one utterance; of a longer one, every second picture is kept, or every fourth, and so on."""

_LONGEST_GAP = 3600.0
"""Seconds; a time stamp that is further on is taken for damage, not for silence."""

_EXACT = 0.002
"""Seconds by which time stamps are off because containers round them."""


@dataclasses.dataclass(frozen=True)
class Media:
    """What a recording contains.

    Attributes:
      sound: whether it has a track of sound.
      pictures: whether it has a track of pictures.
      seconds: how long it is, as the file says; None = unknown.
    """

    sound: bool
    pictures: bool
    seconds: float | None


def probe(path: Path) -> Media:
    """Returns what a recording contains, without decoding it.

    Raises:
      UserError: in one line, if it is missing, a folder, not readable, empty, not a recording, or has neither sound
        nor pictures.
    """
    with opened(path) as container:
        sound, pictures = sound_track(container), picture_track(container)
        seconds = container.duration / 1e6 if container.duration else None
    if sound is None and pictures is None:
        raise UserError(f"{path} has neither sound nor pictures that can be read: give another file")
    return Media(sound is not None, pictures is not None, seconds)


@dataclasses.dataclass(frozen=True)
class Sound:
    """The sound of a recording.

    Attributes:
      samples: float32 `[S]`, `RATE` per second from time 0 on: the mean of the channels but that of low frequencies;
        zeros where nothing came.
      lost: (start, end) in seconds of the parts that are damaged or missing, in order; the last one may be after
        `samples`, and its end infinite.
      defect: what is damaged or missing, one line; empty = nothing.
      notes: what was converted, e.g. "resampled from 44100 Hz".
    """

    samples: np.ndarray
    lost: tuple[tuple[float, float], ...] = ()
    defect: str = ""
    notes: tuple[str, ...] = ()


def read_sound(path: Path) -> Sound:
    """Decodes the sound of a recording.

    Of a damaged file, what comes is kept, at its time. A file without sound has no samples.

    Raises:
      UserError: see `probe`.
    """
    with opened(path) as container:
        stream = sound_track(container)
        if stream is None:
            return Sound(np.zeros(0, np.float32))
        track = Track(path, container, stream)
        wave, failures = _Wave(track.length), 0
        for time, frame in track.frames():
            wave.add(frame, time, after_damage=len(track.damaged) > failures)
            failures = len(track.damaged)
        wave.finish()
        stated, tracks = track.lacking(wave.end), len(container.streams.audio)
    defects, lost = [], list(wave.lost)
    if track.damaged:
        defects.append(f"{_counted(len(track.damaged), 'part')} of its sound cannot be decoded{_first(track.damaged)}")
    if lost:
        seconds = sum(end - start for start, end in lost)
        defects.append(f"{seconds:.2f} s of its sound are missing{_first([start for start, _ in lost])}")
    if wave.astray is not None:
        defects.append(f"the time stamps of its sound are wrong from {wave.astray:.2f} s on")
    if stated is not None:
        lost.append((wave.end, stated))
        defects.append(f"its sound ends at {wave.end:.2f} s{_of(stated)}")
    notes = [*wave.notes(), *([f"one of {tracks} tracks of sound read"] if tracks > 1 else [])]
    return Sound(np.frombuffer(wave.samples, np.float32), tuple(lost), "; ".join(defects), tuple(notes))


@dataclasses.dataclass(frozen=True)
class Clip:
    """The pictures of one span of a recording.

    Attributes:
      index: of the span.
      images: uint8 `[F, H, W, 3]`, red, green, blue, `F > 0`, upright; or why there are none.
      scale: size of the images, as a share of the recording's; boxes in its pixels must be multiplied by it.
      note: what is to be said of them; empty = nothing.
    """

    index: int
    images: np.ndarray | Missing
    scale: float = 1.0
    note: str = ""


def read_pictures(path: Path, spans: Sequence[tuple[float, float]], per_second: float) -> Iterator[Clip]:
    """Decodes the pictures of a recording, and yields those of a span as soon as its end has passed.

    The pictures of a span are those that a player shows at its start, `1 / per_second` later, and so on before its
    end, whatever other spans there are: they depend on the span alone. Where more than `MOST_PICTURES` would be kept,
    every second one is, at twice the distance. Pictures whose longer side is above `WIDEST` pixels are made smaller by
    the least whole number that brings it to that (2 for 1280 x 720, 3 for 1920 x 1080): see `Clip.scale`. They are
    turned as the recording says (telephones). A recording that begins between two key pictures, as one that was cut
    without encoding it anew, begins with the first picture that is whole.

    Args:
      path: the recording.
      spans: (start, end) in seconds, in any order; they may overlap, and an end may be infinite.
      per_second: how many pictures per second.

    Yields:
      A clip for each span, in the order of their ends.

    Raises:
      UserError: see `probe`.
    """
    with opened(path) as container:
        stream = picture_track(container)
        if stream is None:
            yield from (Clip(index, Missing("the recording has no pictures")) for index in range(len(spans)))
            return
        track = Track(path, container, stream)
        waiting = sorted((_Span(i, *span, per_second) for i, span in enumerate(spans)), key=lambda s: -s.start)
        begun: list[_Span] = []
        shown: _Shown | None = None
        for time, frame in track.frames():
            if shown is None:
                track.damaged.clear()
            if frame.is_corrupt:
                track.damaged.append(time or 0.0)
            following = _Shown(frame, time, shown, track.length)
            if shown:
                yield from _advance(waiting, begun, shown, following.time, track)
            shown = following
            if not waiting and not begun:
                return
        came = 0.0
        if shown:
            came = shown.time + shown.seconds
            yield from _advance(waiting, begun, shown, came, track)
        stated = track.lacking(came)
        for span in sorted([*begun, *waiting], key=lambda span: span.end):
            yield span.clip(track.damaged, came, stated)


def _advance(
    waiting: "list[_Span]", begun: "list[_Span]", shown: "_Shown", until: float, track: Track
) -> Iterator[Clip]:
    """Gives spans the picture that is shown until a time, and yields those that have ended then."""
    while waiting and waiting[-1].start < until:
        begun.append(waiting.pop())
    for span in begun:
        span.take(shown, until)
    for span in sorted((span for span in begun if span.end <= until), key=lambda span: span.end):
        begun.remove(span)
        yield span.clip(track.damaged)


class _Wave:
    """Collects the sound of frames at its times.

    Attributes:
      samples: float32, of one channel, `RATE` per second.
      end: time of what comes next, in seconds.
      lost: (start, end) of what did not come.
      astray: when time stamps first went back, or implausibly far on, and were ignored; None = never.
    """

    def __init__(self, length: float) -> None:
        self.samples = bytearray()
        self._length = length
        self.end = 0.0
        self.lost: list[tuple[float, float]] = []
        self.astray: float | None = None
        self._resampler: Any = None
        self._setup: tuple[str, str, int] | None = None
        self._setups: dict[tuple[str, str, int], int] = {}
        self._early = 0

    def add(self, frame: Any, time: float | None, after_damage: bool) -> None:
        """Appends a frame, after zeros if it begins later than the last one ended."""
        if not frame.samples:
            return
        first = self._setup is None
        gap = 0.0 if time is None else time - self.end
        if not (first and -_LONGEST_GAP < gap < 0) and not _plausible(self.end + gap, self.end, self._length):
            self.astray = self.end if self.astray is None else self.astray
            gap = 0.0
        late = gap > (_EXACT if after_damage or first else TOLERANCE)
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        if late or setup != self._setup:
            self.finish()
            if late and (after_damage or not first):
                self.lost.append((self.end, self.end + gap))
            if late or first:
                self.end += gap
                self._early = max(round(-self.end * RATE), 0)
            self._fill(round(self.end * RATE))
            # Packed: of planes, PyAV has at most 8.
            self._resampler = libav().AudioResampler(format="flt", rate=RATE)
            self._setup = setup
            self._setups[setup] = len(frame.layout.channels)
        for resampled in self._resampler.resample(frame):
            self._append(resampled)
        self.end += frame.samples / frame.sample_rate

    def finish(self) -> None:
        """Appends what the resampler still holds back."""
        if self._resampler:
            for resampled in self._resampler.resample(None):
                self._append(resampled)
            self._resampler = None

    def notes(self) -> list[str]:
        """Returns what was converted."""
        rates = {rate for _, _, rate in self._setups if rate != RATE}
        channels = {count for count in self._setups.values() if count > 1}
        return [
            *(f"resampled from {rate} Hz" for rate in sorted(rates)),
            *(f"{count} channels averaged" for count in sorted(channels)),
        ]

    def _append(self, frame: Any) -> None:
        names = [channel.name for channel in frame.layout.channels]
        values = frame.to_ndarray().reshape(-1, len(names))
        kept = [place for place, name in enumerate(names) if not name.startswith("LFE")]
        mixed = values[:, kept or slice(None)].mean(1, dtype=np.float32)
        left_out = min(self._early, len(mixed))
        self._early -= left_out
        self.samples += mixed[left_out:].tobytes()

    def _fill(self, count: int) -> None:
        """Makes the samples `count`, with zeros; what a resampler gives may be off by one."""
        size = np.dtype(np.float32).itemsize
        missing = count - len(self.samples) // size
        self.samples += bytes(max(missing, 0) * size)


class _Shown:
    """A picture as a player shows it.

    Attributes:
      time: from when on, in seconds.
      seconds: how long, as far as the file says.
      scale: see `Clip`.
    """

    def __init__(self, frame: Any, time: float | None, before: "_Shown | None", length: float):
        self._frame = frame
        self._image: np.ndarray | None = None
        self.seconds = float((frame.duration or 0) * frame.time_base) if frame.time_base else 0.0
        self.time: float = time or 0.0
        if before:
            # Without time stamps that make sense, pictures go on at their pace.
            if time is None or not _plausible(time, before.time, length):
                time = before.time + before.seconds
            self.time = max(before.time, time)
            self.seconds = self.seconds or min(self.time - before.time, 1.0)
            self._size: tuple[int, int] = before._size
            self.scale: float = before.scale
        else:
            parts = math.ceil(max(frame.width, frame.height) / WIDEST)
            self._size, self.scale = (max(frame.width // parts, 1), max(frame.height // parts, 1)), 1 / parts

    @property
    def image(self) -> np.ndarray:
        """uint8 `[H, W, 3]`; of the size that the recording's first picture has."""
        if self._image is None:
            width, height = self._size
            small = self._frame.reformat(width, height, "rgb24", interpolation="AREA", threads=1)
            turned = np.rot90(small.to_ndarray(), self._frame.rotation // 90)
            self._image = np.ascontiguousarray(turned)
        return self._image


class _Span:
    """Collects the pictures of one span."""

    def __init__(self, index: int, start: float, end: float, per_second: float):
        self.index, self.start, self.end = index, start, end
        self._step, self._next, self._scale = 1 / per_second, 0, 1.0
        self._images: list[tuple[int, np.ndarray]] = []
        self._thinned = False

    def take(self, shown: _Shown, until: float) -> None:
        """Takes the picture that is shown until a time, as often as it is due."""
        # Before the first picture of a track that begins late, nothing is shown.
        self._next = max(self._next, math.ceil((shown.time - 1e-6 - self.start) / self._step))
        while self.start + self._next * self._step < min(until, self.end) - 1e-6:
            self._images.append((self._next, shown.image))
            self._scale = shown.scale
            self._next += 1
            if len(self._images) > MOST_PICTURES:
                self._thin()

    def clip(self, damaged: Sequence[float], came: float = math.inf, stated: float | None = None) -> Clip:
        """Returns the pictures, or what is wrong with them.

        Args:
          damaged: times of damaged pictures.
          came: where the pictures of the recording end, if they have.
          stated: where they should, if that is later.
        """
        if self.end == math.inf and stated is not None:
            return Clip(self.index, Missing(f"its pictures end at {came:.2f} s{_of(stated)}"))
        if self.end != math.inf and self.end > came + TOLERANCE:
            return Clip(self.index, Missing(f"its pictures end at {came:.2f} s, before {self.end:.2f} s"))
        bad = [time for time in damaged if self.start <= time < self.end]
        if bad:
            return Clip(self.index, Missing(f"{_counted(len(bad), 'damaged picture')}{_first(sorted(bad))}"))
        if not self._images:
            return Clip(self.index, Missing("no picture is shown in its time"))
        note = f"a picture every {self._step:.3g} s, because it is long" if self._thinned else ""
        return Clip(self.index, np.stack([image for _, image in self._images]), self._scale, note)

    def _thin(self) -> None:
        self._images = [(number // 2, image) for number, image in self._images if number % 2 == 0]
        self._next = (self._next + 1) // 2
        self._step *= 2
        self._thinned = True


def _plausible(time: float, after: float, length: float) -> bool:
    """Whether a frame may be at a time: not before the time that it should be after, an hour late or beyond the end."""
    return after - TOLERANCE <= time <= max(after + TOLERANCE, min(after + _LONGEST_GAP, length + 1))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _first(times: Sequence[float]) -> str:
    return f"{'' if len(times) == 1 else ', the first'} at {times[0]:.2f} s"


def _of(stated: float) -> str:
    return ", where the file is cut off" if stated == math.inf else f" of {stated:.2f} s"
