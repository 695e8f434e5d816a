"""Recordings made on the spot through PyAV: tones, given samples, pictures that say their time, and damaged files."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

CODECS = {
    ".wav": ("pcm_s16le", None),
    ".flac": ("flac", None),
    ".mp3": ("libmp3lame", None),
    ".m4a": ("aac", None),
    ".mp4": ("aac", "libx264"),
    ".mkv": ("aac", "libx264"),
    ".avi": ("pcm_s16le", "mpeg4"),
    ".webm": ("libopus", "libvpx-vp9"),
    ".ts": ("aac", "libx264"),
}
"""Suffix -> codecs of sound and of pictures."""
LEVELS = 20
"""How many kinds of picture `numbered_pictures` has."""


def tone(frequency: float, seconds: float, rate: int = 16_000, level: float = 0.5) -> np.ndarray:
    """Returns a sine, float32 `[S]`."""
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def numbered_pictures(count: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Returns grey pictures `[F, H, W, 3]` whose brightness is their number, see `number_of`."""
    numbers = np.arange(count) % LEVELS
    width, height = size
    return np.broadcast_to((20 + 11 * numbers).astype(np.uint8)[:, None, None, None], (count, height, width, 3))


def number_of(image: np.ndarray) -> int:
    """Returns the number, modulo `LEVELS`, of one of `numbered_pictures`, whatever its size."""
    return round((float(image.mean()) - 20) / 11)


def numbers_of(images: np.ndarray) -> list[int]:
    """Returns the numbers of several pictures."""
    return [number_of(image) for image in images]


def write_media(
    path: Path,
    sound: np.ndarray | None = None,
    pictures: np.ndarray | None = None,
    *,
    rate: int = 16_000,
    per_second: int = 25,
    sound_starts: float = 0.0,
    pictures_start: float = 0.0,
    pause: tuple[float, float] | None = None,
    codecs: tuple[str | None, str | None] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a recording.

    Args:
      path: the suffix says the container and, unless given, the codecs.
      sound: float `[S]` or several channels `[S, C]`; None = no track of sound.
      pictures: uint8 `[F, H, W, 3]`; None = no track of pictures.
      rate: samples per second.
      per_second: pictures per second.
      sound_starts: time of the first sample, in seconds.
      pictures_start: time of the first picture.
      pause: (time, seconds): from this time on, the time stamps of sound are later, as if packets were lost before.
      codecs: of sound and of pictures.
      options: of the container, e.g. `{"movflags": "frag_keyframe+empty_moov"}`.

    Returns:
      `path`.
    """
    import av

    sound_codec, picture_codec = codecs or CODECS[path.suffix]
    packets = []
    with av.open(str(path), "w", options=options or {}) as container:
        tracks = []
        if pictures is not None:
            tracks.append(_picture_track(container, picture_codec, pictures, per_second, pictures_start))
        if sound is not None:
            tracks.append(_sound_track(container, sound_codec, sound, rate, sound_starts, pause))
        for stream, frames in tracks:
            for frame in [*frames, None]:
                packets += stream.encode(frame)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def _picture_track(container, codec, pictures, per_second, start):
    import av

    stream = container.add_stream(codec, rate=per_second)
    stream.height, stream.width = pictures.shape[1:3]
    stream.pix_fmt = "yuv420p"
    stream.gop_size = 12
    stream.codec_context.bit_rate = 400_000

    def frames():
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 1000), round(1000 * (start + number / per_second))
            yield frame

    stream.codec_context.time_base = Fraction(1, 1000)
    return stream, frames()


def _sound_track(container, codec, sound, rate, start, pause):
    import av

    channels = sound.reshape(len(sound), -1)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels.shape[1]]
    stream = container.add_stream(codec, rate=rate, layout=layout)
    form, size = stream.codec_context.format.name, stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=form, layout=layout, rate=rate, frame_size=size)

    def frames():
        values = np.ascontiguousarray(channels.T, np.float32)
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            if pause and converted.time >= pause[0]:
                converted.pts += round(pause[1] / converted.time_base)
            yield converted

    return stream, frames()


def cut_off(path: Path, share: float) -> Path:
    """Cuts a file off after a share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def damage(path: Path, places: int, seed: int = 0, head: int = 4000, tail: int = 4000) -> Path:
    """Changes bytes at random places of a file but for its head and tail, where the indices are."""
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(seed).integers(head, len(content) - tail, places):
        content[place] ^= 0xFF
    path.write_bytes(content)
    return path


def turn(path: Path, degrees: int) -> Path:
    """Makes the pictures of an mp4 file be shown turned clockwise by 90, 180 or 270 degrees, as telephones do."""
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", *matrix)
    assert content[place : place + 4] == struct.pack(">i", 65536)
    path.write_bytes(content[:place] + turned + content[place + 36 :])
    return path
