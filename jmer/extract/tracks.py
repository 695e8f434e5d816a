"""Tracks of sound and of pictures in recordings, decoded from their first packet to their last."""

import contextlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from jmer.errors import UserError
from jmer.extract.extras import require
from jmer.file_kinds import kind_of

TOLERANCE = 0.05
"""Seconds of a recording that may be missing without a word: encoders round the length of a track to their frames."""

_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,dv,eac3,flac,flv,gsm,ivf,loas,matroska,mov,mp3,mpeg,mpegts,"
    "mxf,nistsphere,nut,ogg,rm,tta,voc,w64,wav,webm,wtv,wv"
)
"""What is opened: not subtitles, photographs and text, which libav plays too, nor lists of other files."""

_START_AT_0 = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")
"""Containers whose time stamps count from the time 0 that players show; in others the first time stamp is time 0."""

_STATED = (*_START_AT_0, "asf", "avi", "caf", "flac", "flv", "w64", "wav")
"""Containers whose header states how long a recording is; in others libav estimates it."""

_UNKNOWN_LENGTH = 0x7FFF_0000
"""Lengths from here on are what programs that write to a pipe put into the header of a RIFF file (wav, avi)."""


def libav() -> ModuleType:
    """Imports PyAV and silences its library, whose messages say less than the errors that it raises.

    Raises:
      UserError: if it is not installed.
    """
    av = require("av", "media", "reading recordings")
    av.logging.set_level(av.logging.PANIC)
    return av


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Opens a recording, as a container of PyAV.

    Raises:
      UserError: in one line, if it is missing, a folder, not readable, empty or not a recording.
    """
    av = libav()
    _check_file(path)
    try:
        # An absolute path is never taken for a protocol, as "a:b.mp4" would be.
        container = av.open(str(path.absolute()), options={"format_whitelist": _CONTAINERS}, metadata_errors="replace")
    except av.FFmpegError as error:
        raise UserError(_what_it_is(path, error)) from error
    try:
        with container:
            yield container
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): get the file again") from error


def sound_track(container: Any) -> Any:
    """Returns the stream of sound that a player plays, None if there is none that can be decoded."""
    return _best(container, "audio")


def picture_track(container: Any) -> Any:
    """Returns the stream of pictures that a player shows, None if there is none; the cover of a song is none."""
    return _best(container, "video")


class Track:
    """Decodes one stream of an open recording from its start, without seeking.

    What cannot be decoded is left out and noted.

    Attributes:
      length: of the recording, in seconds, as the file says; infinite if it does not.
      damaged: times, in seconds, of packets that could not be decoded.
    """

    def __init__(self, path: Path, container: Any, stream: Any):
        self._path, self._container, self._stream = path, container, stream
        self._origin = 0.0
        if container.format.name not in _START_AT_0 and container.start_time is not None:
            self._origin = container.start_time / 1e6
        self.length = math.inf
        if container.duration:
            self.length = (container.duration + max(container.start_time or 0, 0)) / 1e6 - self._origin
        self._reached = 0.0
        self.damaged: list[float] = []
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1

    def frames(self) -> Iterator[tuple[float | None, Any]]:
        """Yields the time of each frame in seconds, None if the file does not say, and the frame."""
        av = libav()
        for packet in self._packets():
            try:
                # Of the stream as it was at first: the parameters of a damaged one may have changed since.
                frames = self._stream.decode(packet)
            except av.FFmpegError:
                if packet is not None and packet.size:
                    self.damaged.append(self._time(packet) or 0.0)
                continue
            for frame in frames:
                yield self._time(frame), frame

    def lacking(self, came: float) -> float | None:
        """Returns where the file says that the track ends, if that is more than `TOLERANCE` after what came.

        To be asked after the last frame. Infinity: the file is cut off, it is not known where.

        Args:
          came: end of what was decoded, in seconds.
        """
        name, stream = self._container.format.name, self._stream
        if _cut_off(self._path):
            return math.inf
        if name not in _STATED:
            return None
        if stream.duration:
            stated = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - self._origin
        elif self._reached + 1 < self.length < math.inf:
            # The length of the longest track, but no track came that far.
            stated = self.length
        else:
            return None
        return stated if stated > came + TOLERANCE else None

    def _packets(self) -> Iterator[Any]:
        """Yields the packets of the stream, and None at the end of a file whose rest cannot be read."""
        av = libav()
        try:
            for packet in self._container.demux():
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._reached = max(self._reached, float(end) - self._origin)
                if packet.stream_index == self._stream.index:
                    yield packet
        except (av.FFmpegError, IndexError):  # the latter of tracks that appeared on the way
            yield None

    def _time(self, timed: Any) -> float | None:
        base = timed.time_base or self._stream.time_base
        return None if timed.pts is None else float(timed.pts * base) - self._origin


def _best(container: Any, kind: str) -> Any:
    av = libav()
    cover = av.stream.Disposition.attached_pic
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if stream.codec_context is not None and not stream.disposition & cover
    ]
    best = container.streams.best(kind)
    return best if best in streams else next(iter(streams), None)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a recording")
    if not path.exists():
        raise UserError(f"no file {path}: check its path")
    if not path.is_file():
        raise UserError(f"{path} is not a file: give a recording")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): get permission to read it") from error
    if empty:
        raise UserError(f"{path} is empty: get the file again")


def _what_it_is(path: Path, error: Exception) -> str:
    """Returns a line on a file that libav does not open."""
    kind = kind_of(path)
    if kind and kind.name != "media":
        remedy = kind.remedy if kind.what.endswith("itself") else "give a file of sound or video"
        return f"{path} is {kind.what}: {remedy}"
    if kind or "moov atom" in str(error):
        return f"{path} is cut off or damaged, nothing in it can be read: get the file again"
    return f"{path} is not a recording that can be read: give a file of sound or video, such as .wav, .mp4 or .mkv"


def _cut_off(path: Path) -> bool:
    """Whether a RIFF file is shorter than its header says; libav then takes what is there for the whole."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != b"RIFF" or len(head) < 8:
        return False
    (length,) = struct.unpack("<I", head[4:])
    return path.stat().st_size < length + 8 and length < _UNKNOWN_LENGTH
