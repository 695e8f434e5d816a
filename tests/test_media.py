"""Recordings are decoded once from their start, at the right time, and what is damaged in them is said."""

import contextlib
import itertools
import math
import os
import re
import struct
import sys

import numpy as np
import pytest
from media import CODECS, cut_off, damage, number_of, numbered_pictures, numbers_of, tone, turn, write_media

from jmer.errors import UserError
from jmer.extract import media
from jmer.extract.media import Clip, Sound, probe, read_pictures, read_sound
from jmer.extract.protocol import RATE, Missing
from jmer.extract.sound import cut

av = pytest.importorskip("av")
WITH_PICTURES = [suffix for suffix, (_, codec) in CODECS.items() if codec]
WHOLE = (0.0, math.inf)


def decoded(path):
    """Returns the sound of a mono file as PyAV gives it."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        frames = [*container.decode(audio=0), None]
        return np.concatenate([out.to_ndarray()[0] for frame in frames for out in resampler.resample(frame)])


def all_numbers(path):
    """Returns the times and the numbers of all pictures of a file."""
    with av.open(str(path)) as container:
        return [(frame.time, number_of(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]


def clips(path, spans, per_second=5):
    """Returns the pictures of spans in the order of the spans."""
    return sorted(read_pictures(path, spans, per_second), key=lambda clip: clip.index)


def level(samples):
    return float(np.sqrt(np.mean(np.square(samples))))


def pitch(samples):
    """Returns the frequency of a tone by its zero crossings."""
    crossings = np.flatnonzero((samples[:-1] < 0) & (samples[1:] >= 0))
    return RATE * (len(crossings) - 1) / (crossings[-1] - crossings[0])


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_sound_is_what_was_written(tmp_path, suffix, rate):
    pictures = numbered_pictures(50) if CODECS[suffix][1] else None
    path = write_media(tmp_path / f"a{suffix}", tone(220, 2, rate), pictures, rate=rate)
    sound = read_sound(path)
    assert sound.samples.dtype == np.float32 and sound.samples.ndim == 1
    assert (sound.lost, sound.defect) == ((), "")
    source = 48_000 if suffix == ".webm" else rate  # Opus is always decoded to that
    assert sound.notes == (() if source == RATE else (f"resampled from {source} Hz",))
    assert 2.0 <= len(sound.samples) / RATE < 2.13  # encoders fill their first and last frames
    lossless = suffix in (".wav", ".flac", ".avi")
    late = 1024 / rate if suffix == ".ts" else 0  # the file begins with the encoder's delay
    expected, came = tone(220, 2), sound.samples[round(late * RATE) :]
    assert np.abs(came[:30000] - expected[:30000])[300:].max() < (1e-4 if lossless else 0.1)
    assert probe(path) == media.Media(True, pictures is not None, pytest.approx(2.0, abs=0.13))


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_cut_is_a_slice_of_what_is_decoded_from_the_start(tmp_path, suffix, rate):
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * rate).astype(np.float32)
    path = write_media(tmp_path / f"a{suffix}", noise, rate=rate, codecs=(CODECS[suffix][0], None))
    sound, whole = read_sound(path), decoded(path)
    early = max(len(whole) - len(sound.samples), 0)  # what an encoder puts before time 0
    assert early in (0, 1)
    for start, end in ((0, 2), (0.1, 0.35), (0.3, 0.9), (1.2345, 1.9)):
        samples = cut(sound, start, end, 0.025).samples
        assert np.array_equal(samples, whole[early:][round(start * RATE) : round(end * RATE)])
        assert len(samples) == round(end * RATE) - round(start * RATE)


def test_the_last_samples_of_the_resampler_are_there(tmp_path):
    assert len(read_sound(write_media(tmp_path / "a.wav", tone(220, 5, 44_100), rate=44_100)).samples) == 5 * RATE


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "adpcm_ima_wav"])
def test_bits_per_sample(tmp_path, codec):
    path = write_media(tmp_path / "a.wav", tone(220, 1), codecs=(codec, None))
    exact = codec not in ("pcm_u8", "adpcm_ima_wav")
    assert np.abs(read_sound(path).samples[:16000] - tone(220, 1))[500:].max() < (1e-4 if exact else 0.02)


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_channels_are_averaged(tmp_path, codec):
    suffix = ".wav" if codec == "pcm_s16le" else ".m4a"
    voice, rest = tone(220, 2), np.zeros(2 * RATE, np.float32)
    both = read_sound(write_media(tmp_path / f"b{suffix}", np.stack([voice, voice], 1)))
    right = read_sound(write_media(tmp_path / f"r{suffix}", np.stack([rest, voice], 1)))
    assert both.notes == right.notes == ("2 channels averaged",)
    inner = slice(4000, 28000)
    # libav's own mixing would make the first 1.41 times as loud.
    assert level(both.samples[inner]) == pytest.approx(level(voice[inner]), rel=0.02)
    assert level(right.samples[inner]) == pytest.approx(level(voice[inner]) / 2, rel=0.02)


def test_the_channel_of_low_frequencies_is_left_out(tmp_path):
    channels = np.stack([tone(50.0 if i == 3 else 220.0, 1) for i in range(6)], 1)  # FL FR FC LFE BL BR
    sound = read_sound(write_media(tmp_path / "a.wav", channels))
    assert np.abs(sound.samples - tone(220, 1)).max() < 1e-3
    assert sound.notes == ("6 channels averaged",)


@pytest.mark.parametrize("count", [3, 8, 12, 24])
def test_channels_without_names(tmp_path, count):
    header = b"RIFF%bWAVEfmt %bdata%b"
    levels = np.arange(1, count + 1) / count
    values = (tone(220, 1)[:, None] * levels * 32767).astype("<i2").tobytes()
    form = struct.pack("<IHHIIHH", 16, 1, count, RATE, RATE * 2 * count, 2 * count, 16)
    content = header % (struct.pack("<I", 36 + len(values)), form, struct.pack("<I", len(values)))
    (tmp_path / "a.wav").write_bytes(content + values)
    sound = read_sound(tmp_path / "a.wav")
    assert sound.notes == (f"{count} channels averaged",)
    if count != 8:  # taken for 7.1, without its channel of low frequencies
        assert np.abs(sound.samples - tone(220, 1) * levels.mean()).max() < 1e-3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_tracks_that_begin_late(tmp_path, suffix):
    path = write_media(tmp_path / f"s{suffix}", tone(220, 2), numbered_pictures(60), sound_starts=0.5)
    sound = read_sound(path)
    assert (sound.lost, sound.defect) == ((), "")
    assert level(sound.samples[: int(0.42 * RATE)]) == 0 and level(sound.samples[int(0.52 * RATE) : 2 * RATE]) > 0.3
    assert np.abs(sound.samples[10_000:36_000] - tone(220, 2)[2000:28_000]).max() < 0.05
    path = write_media(tmp_path / f"p{suffix}", tone(220, 2), numbered_pictures(50), pictures_start=0.5)
    (clip,) = clips(path, [(0.0, 2.0)])
    assert numbers_of(clip.images) == [2, 7, 12, 17, 2, 7, 12]  # shown at 0.6, 0.8, ..., 1.8
    assert np.abs(read_sound(path).samples[2000:28_000] - tone(220, 2)[2000:28_000]).max() < 0.05


def test_time_0_of_formats_whose_time_stamps_begin_anywhere(tmp_path):
    path = write_media(tmp_path / "a.ts", tone(220, 2), numbered_pictures(50), sound_starts=100, pictures_start=100)
    assert len(read_sound(path).samples) / RATE == pytest.approx(2.1, abs=0.1)
    (clip,) = clips(path, [(0.5, 1.5)])
    assert numbers_of(clip.images) == [10, 15, 0, 5, 10]  # the sound begins 64 ms earlier, with the encoder's delay


def test_silence_is_put_where_packets_are_missing(tmp_path):
    path = write_media(tmp_path / "a.mkv", tone(220, 2), pause=(1.024, 0.5), codecs=("pcm_s16le", None))
    sound = read_sound(path)
    assert len(sound.samples) == 2.5 * RATE
    first, last = round(1.024 * RATE), round(1.524 * RATE)
    assert np.abs(sound.samples[:first] - tone(220, 2)[:first]).max() < 1e-4
    assert not sound.samples[first:last].any()
    assert np.abs(sound.samples[last:] - tone(220, 2)[first:]).max() < 1e-4
    assert np.allclose(sound.lost, [(1.024, 1.524)])
    assert sound.defect == "0.50 s of its sound are missing at 1.02 s"
    assert cut(sound, 0.5, 2, 0).samples == Missing("0.50 s of its sound, at 1.02 s, is damaged or missing")
    assert cut(sound, 1.48, 2, 0).warning == "44 ms of its sound are missing"
    assert cut(sound, 1.53, 2, 0).warning == ""
    assert isinstance(cut(sound, 0, math.inf, 0).samples, Missing)


def test_time_stamps_that_make_no_sense_are_ignored(tmp_path):
    path = write_media(tmp_path / "a.mkv", tone(220, 2), pause=(1.024, 5000.0), codecs=("pcm_s16le", None))
    sound = read_sound(path)
    assert np.abs(sound.samples - tone(220, 2)).max() < 1e-4
    assert sound.defect == "the time stamps of its sound are wrong from 1.02 s on"


def test_time_stamps_that_begin_anew(tmp_path):
    """Files of some formats can be joined by joining their bytes."""
    parts = [write_media(tmp_path / f"{hertz}.ts", tone(hertz, 1), numbered_pictures(25)) for hertz in (220, 330)]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    sound = read_sound(path)
    assert len(sound.samples) == sum(len(read_sound(part).samples) for part in parts)
    (clip,) = clips(path, [(0.1, 2.0)], per_second=25)
    late = numbers_of(clip.images)[0]
    assert numbers_of(clip.images) == [number % 25 % 20 for number in range(late, late + len(clip.images))]
    assert [round(pitch(part)) for part in (sound.samples[4000:15000], sound.samples[22000:32000])] == [220, 330]
    assert sound.defect == "the time stamps of its sound are wrong from 1.09 s on"


def test_the_rate_changes_within_a_file(tmp_path):
    parts = [write_media(tmp_path / f"{r}.mp3", tone(220, 1, r), rate=r) for r in (44_100, 24_000)]
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    sound = read_sound(path)
    assert len(sound.samples) / RATE == pytest.approx(2, abs=0.1)
    assert [round(pitch(part)) for part in (sound.samples[2000:14000], sound.samples[20000:30000])] == [220, 220]
    assert sound.notes == ("resampled from 24000 Hz", "resampled from 44100 Hz")


def noisy(path, **options):
    """Writes two seconds that do not compress, so that a file's bytes are spread over its time."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (50, 48, 64, 3), np.uint8) if CODECS[path.suffix][1] else None
    return write_media(path, 0.1 * rng.standard_normal(2 * RATE).astype(np.float32), pictures, **options)


TRUNCATED = {
    "mkv": (".mkv", {}),
    "webm": (".webm", {"rate": 48_000}),
    "fragmented mp4": (".mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mp4 with its index first": (".mp4", {"options": {"movflags": "faststart"}}),
    "wav": (".wav", {}),
    "avi": (".avi", {}),
    "flac": (".flac", {}),
}


@pytest.mark.parametrize("kind", TRUNCATED)
def test_a_truncated_recording(tmp_path, kind):
    suffix, options = TRUNCATED[kind]
    if options.get("rate"):
        sound = 0.1 * np.random.default_rng(0).standard_normal(96_000).astype(np.float32)
        path = write_media(tmp_path / f"a{suffix}", sound, numbered_pictures(50), rate=48_000)
    else:
        path = noisy(tmp_path / f"a{suffix}", **options)
    cut_off(path, 0.5)
    probe(path)
    sound = read_sound(path)
    came = len(sound.samples) / RATE
    assert 0.5 < came < 1.5
    tail = ", where the file is cut off" if suffix in (".wav", ".avi") else r" of [12]\.\d\d s"
    assert re.search(rf"its sound ends at {came:.2f} s{tail}$", sound.defect)
    assert len(cut(sound, 0.1, 0.4, 0.025).samples) == 0.3 * RATE
    assert cut(sound, 0.1, 2, 0.025).samples == Missing(f"the recording's sound ends at {came:.2f} s, before 2.00 s")
    assert isinstance(cut(sound, 0.1, math.inf, 0.025).samples, Missing)
    if CODECS[suffix][1]:
        start, late, whole = clips(path, [(0.1, 0.4), (1.5, 2.0), WHOLE])
        assert start.images.shape == (2, 48, 64, 3)
        assert "pictures end at" in late.images.reason and "pictures end at" in whole.images.reason


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFF024], ids=hex)
def test_a_wav_that_was_written_to_a_pipe_is_whole(tmp_path, length):
    path = write_media(tmp_path / "a.wav", tone(220, 1))
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[4:8] = content[place : place + 4] = struct.pack("<I", length)
    path.write_bytes(content)
    sound = read_sound(path)
    assert (len(sound.samples), sound.lost, sound.defect) == (RATE, (), "")


def test_a_wav_without_samples(tmp_path):
    path = write_media(tmp_path / "a.wav", tone(220, 1))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"data") + 8])
    sound = read_sound(path)
    assert len(sound.samples) == 0
    assert cut(sound, 0, 1, 0).samples == Missing("its sound ends at 0.00 s, where the file is cut off")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_damage_within_a_file_is_named(tmp_path, suffix):
    path = damage(noisy(tmp_path / f"a{suffix}"), 60)
    sound = read_sound(path)
    assert " of its sound cannot be decoded" in sound.defect
    assert len(sound.samples) / RATE == pytest.approx(2, abs=0.2)  # what comes after damage is at its time
    spans = [(i / 5, (i + 1) / 5) for i in range(10)]
    fates = [clip.images for clip in clips(path, spans, per_second=25)]
    assert any(isinstance(images, Missing) and "damaged picture" in images.reason for images in fates)


@pytest.mark.parametrize("suffix", CODECS)
def test_whatever_the_damage_there_is_a_line_or_what_came(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = noisy(tmp_path / f"a{suffix}", **({"rate": 48_000} if suffix == ".webm" else {}))
    whole = path.read_bytes()
    for trial in range(16):
        content = bytearray(whole)
        if trial % 4 == 0:
            del content[rng.integers(1, len(content)) :]
        elif trial % 4 == 1:
            place = rng.integers(0, len(content))
            del content[place : place + rng.integers(1, 4000)]
        else:
            for place in rng.integers(0, len(content) if trial % 4 == 2 else 1500, 20):
                content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert [clip.index for clip in clips(path, [(0, 1), WHOLE])] == [0, 1]
            assert len(read_sound(path).samples) / RATE < 4000
        except UserError as error:
            assert str(error).startswith(str(path))


def test_what_comes_after_damaged_packets_is_at_its_time(tmp_path):
    """Packets of sound are overwritten, as by a bad sector."""
    path = write_media(tmp_path / "a.m4a", tone(220, 4, 48_000), rate=48_000)
    with av.open(str(path)) as container:
        packets = [
            (packet.pos, packet.size, packet.pts * packet.time_base) for packet in container.demux() if packet.size
        ]
    content = bytearray(path.read_bytes())
    chosen = packets[60:70]
    for place, size, _ in chosen:
        content[place : place + size] = b"\xff" * size
    path.write_bytes(content)
    sound = read_sound(path)
    start, seconds = float(chosen[0][2]), 10 * 1024 / 48_000
    assert "parts of its sound cannot be decoded, the first at 1." in sound.defect
    assert sum(end - first for first, end in sound.lost) == pytest.approx(seconds, abs=0.03)
    assert np.abs(sound.samples[RATE * 2 : RATE * 3] - tone(220, 4)[RATE * 2 : RATE * 3]).max() < 0.05
    assert isinstance(cut(sound, start - 0.1, start + 0.4, 0).samples, Missing)
    assert isinstance(cut(sound, 0, 1, 0).samples, np.ndarray)
    assert isinstance(cut(sound, 2, 3, 0).samples, np.ndarray)


@pytest.mark.parametrize("suffix", WITH_PICTURES)
@pytest.mark.parametrize("per_second", [2.5, 5, 25, 60])
def test_pictures_are_those_that_a_player_shows(tmp_path, suffix, per_second):
    path = write_media(tmp_path / f"a{suffix}", tone(220, 2), numbered_pictures(50))
    shown = all_numbers(path)
    with av.open(str(path)) as container:
        origin = container.start_time / 1e6 if suffix == ".ts" else 0.0
    spans = [(1.0, 1.5), (0.0, 2.0), (0.3, 1.2), (1.0, 1.5), (0.21, 0.22), (1.9, 2.04), WHOLE]
    for clip, (start, end) in zip(clips(path, spans, per_second), spans, strict=True):
        instants = itertools.takewhile(
            lambda instant, end=end: instant < min(end, shown[-1][0] - origin + 0.04) - 1e-6,
            (start + k / per_second for k in itertools.count()),
        )
        visible = ([number for time, number in shown if time - origin <= instant + 1e-6] for instant in instants)
        assert numbers_of(clip.images) == [numbers[-1] for numbers in visible if numbers]
        assert (clip.scale, clip.note) == (1.0, "")


def test_a_clip_does_not_depend_on_other_spans(tmp_path):
    path = write_media(tmp_path / "a.mp4", None, np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), np.uint8))
    spans = [(0.5, 1.1), (0.0, 2.0), (0.9, 1.0)]
    for together, span in zip(clips(path, spans), spans, strict=True):
        (alone,) = clips(path, [span])
        assert np.array_equal(together.images, alone.images)


def test_a_span_is_yielded_when_its_end_has_passed(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", None, numbered_pictures(50))
    seen = []
    monkeypatch.setattr(
        media, "_Shown", lambda frame, *rest, real=media._Shown: seen.append(frame) or real(frame, *rest)
    )
    reader = read_pictures(path, [(0.4, 0.6), (0.0, 0.2), (1.0, 1.2)], 5)
    order = [(next(reader).index, len(seen)) for _ in range(3)]
    assert order == [(1, 6), (0, 16), (2, 31)]
    assert next(reader, None) is None and len(seen) == 31  # the rest of the file is not decoded


def test_a_long_span_has_fewer_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "MOST_PICTURES", 6)
    path = write_media(tmp_path / "a.mp4", None, numbered_pictures(50))
    short, long, late = clips(path, [(0.0, 1.2), (0.0, 2.0), (0.2, math.inf)])
    assert numbers_of(short.images) == [0, 5, 10, 15, 0, 5] and short.note == ""
    assert numbers_of(long.images) == [0, 10, 0, 10, 0]
    assert numbers_of(late.images) == [5, 15, 5, 15, 5]
    assert long.note == "a picture every 0.4 s, because it is long"


@pytest.mark.parametrize(
    ("size", "parts"), [((640, 360), 1), ((642, 360), 2), ((1280, 720), 2), ((1920, 1080), 3), ((360, 720), 2)]
)
def test_large_pictures_are_made_smaller(tmp_path, size, parts):
    width, height = size
    picture = np.zeros((2, height, width, 3), np.uint8)
    picture[:, : height // 2, : width // 2] = 255
    (clip,) = clips(write_media(tmp_path / "a.mp4", None, picture), [(0.0, 0.04)])
    assert clip.images.shape == (1, height // parts, width // parts, 3) and clip.scale == 1 / parts
    bright = clip.images[0].mean(-1) > 128
    assert bright.any(0).sum() == pytest.approx(width / 2 * clip.scale, abs=1)
    assert bright.any(1).sum() == pytest.approx(height / 2 * clip.scale, abs=1)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_of_telephones_are_turned(tmp_path, degrees):
    picture = np.zeros((5, 48, 64, 3), np.uint8)
    picture[:, :24, :32, 0] = 255
    path = turn(write_media(tmp_path / "a.mp4", None, picture), degrees)
    (clip,) = clips(path, [(0.0, 0.1)])
    expected = np.rot90(picture[0], -degrees // 90)
    assert clip.images[0].shape == expected.shape
    assert np.abs(clip.images[0].astype(int) - expected).mean() < 10


def test_the_cover_of_a_song_is_no_picture(tmp_path):
    path = write_media(tmp_path / "a.mp3", tone(220, 1))
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "rgb24"
    frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
    body = b"\0image/png\0\x03\0" + bytes(encoder.encode(frame)[0])
    tag = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(tag) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + tag + path.read_bytes())
    with av.open(str(path)) as container:
        assert container.streams.video
    assert probe(path) == media.Media(True, False, pytest.approx(1, abs=0.1))
    assert clips(path, [WHOLE]) == [Clip(0, Missing("the recording has no pictures"))]


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])  # the one says nothing, the other raises
def test_a_recording_that_begins_between_key_pictures(tmp_path, codec):
    """Cut without encoding anew; key pictures are 12 pictures apart."""
    whole = write_media(tmp_path / "whole.mp4", None, numbered_pictures(50), codecs=(None, codec))
    path = tmp_path / "a.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[5:-1]:
            packet.stream = stream
            container.mux(packet)
    for clip in clips(path, [(0.0, 1.0), (0.6, 1.0)], per_second=25):
        numbers = numbers_of(clip.images)
        assert numbers and numbers == [number % 20 for number in range(25 - len(numbers), 25)]


def test_tags_in_other_encodings(tmp_path):
    path = write_media(tmp_path / "a.wav", tone(220, 1))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Lavf", b"\xe9\xe8\xff\xfe"))
    assert path.read_bytes() != content
    assert len(read_sound(path).samples) == RATE


def test_several_tracks_of_sound(tmp_path):
    path = tmp_path / "a.mkv"
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(av.open(str(path), "w"))
        parts = [write_media(tmp_path / f"{hertz}.wav", tone(hertz, 1)) for hertz in (220, 330)]
        sources = [stack.enter_context(av.open(str(part))) for part in parts]
        streams = [container.add_stream_from_template(source.streams.audio[0]) for source in sources]
        for source, stream in zip(sources, streams, strict=True):
            for packet in list(source.demux())[:-1]:
                packet.stream = stream
                container.mux(packet)
    sound = read_sound(path)
    assert round(pitch(sound.samples)) == 220 and sound.notes == ("one of 2 tracks of sound read",)


def test_a_track_that_is_not_there(tmp_path):
    path = write_media(tmp_path / "a.wav", tone(220, 1))
    assert clips(path, [WHOLE, (0, 1)]) == [Clip(i, Missing("the recording has no pictures")) for i in range(2)]
    path = write_media(tmp_path / "b.mp4", None, numbered_pictures(25))
    assert probe(path) == media.Media(False, True, 1.0)
    assert cut(read_sound(path), 0, 1, 0).samples == Missing("the recording has no sound")


def test_spans_without_pictures(tmp_path):
    path = write_media(tmp_path / "a.mp4", tone(220, 3), numbered_pictures(25), pictures_start=1)
    early, late, after = clips(path, [(0, 0.9), (1.5, 2.2), (5, 6)])
    assert early.images == Missing("no picture is shown in its time")
    assert late.images == Missing("its pictures end at 2.00 s, before 2.20 s")
    assert after.images == Missing("its pictures end at 2.00 s, before 6.00 s")


BAD = {
    "missing": (None, "no file {}: check its path"),
    "empty": (b"", "{} is empty: get the file again"),
    "text": (b"hello\n", "{} is a text file that begins with 'hello': give a file of sound or video"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "{} is a Git LFS pointer, not the file itself: get the file with `git lfs pull` in its repository",
    ),
    "page": (
        b"<!DOCTYPE html><html></html>",
        "{} is a web page, not the file itself: open its address in a browser and download the file itself",
    ),
    "bytes": (
        bytes(range(1, 200)),
        "{} is not a recording that can be read: give a file of sound or video, such as .wav, .mp4 or .mkv",
    ),
    "subtitles": (
        b"1\n00:00:01,000 --> 00:00:02,000\nHi\n",
        "{} is a text file that begins with '1': give a file of sound or video",
    ),
    "list of files": (
        b"ffconcat version 1.0\nfile a.wav\n",
        "{} is a text file that begins with 'ffconcat version 1.0': give a file of sound or video",
    ),
}


@pytest.mark.parametrize("reader", [probe, read_sound, lambda path: list(read_pictures(path, [WHOLE], 5))])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_recording(tmp_path, reader, kind):
    content, message = BAD[kind]
    path = tmp_path / "a.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        reader(path)
    assert str(caught.value) == message.format(path)


def test_an_mp4_that_was_cut_before_its_index(tmp_path):
    path = cut_off(write_media(tmp_path / "a.mp4", tone(220, 1)), 0.5)
    (tmp_path / "b.mp4").write_bytes(bytes(range(1, 200)))
    for bad in (path, tmp_path / "b.mp4"):
        with pytest.raises(UserError) as caught:
            probe(bad)
        assert str(caught.value) == f"{bad} is cut off or damaged, nothing in it can be read: get the file again"


def test_folders_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "pipe", "is not a file")):
        with pytest.raises(UserError, match=f"{message}: give a recording"):
            probe(path)


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.wav", tone(220, 1))

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(UserError) as caught:
        probe(path)
    assert str(caught.value) == f"cannot read {path} (Permission denied): get permission to read it"


@pytest.mark.parametrize("name", ["a:b.wav", "concat:a.wav", "with blank.wav", "%d.wav", os.fsdecode(b"\xff.wav")])
def test_names_of_files(tmp_path, monkeypatch, name):
    write_media(tmp_path / "x.wav", tone(220, 1)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    assert len(read_sound(Path(name)).samples) == RATE


def test_the_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"not installed .*: pip install 'jmer\[media\]'"):
        probe(tmp_path)


LOUD = tone(220, 1, level=0.9)


@pytest.mark.parametrize(
    ("samples", "span", "reason"),
    [
        (LOUD, (0.5, 0.518), "too short: 18 ms"),
        (LOUD, (1.0, 1.04), "too short: 0 ms"),
        (LOUD, (0.5, 1.06), "the recording's sound ends at 1.00 s, before 1.06 s"),
        (LOUD, (3.0, 4.0), "the recording's sound ends at 1.00 s, before 4.00 s"),
        (LOUD * 1e-4, (0.0, 1.0), "silent"),
        (np.where(np.arange(RATE) == 99, np.nan, LOUD), (0.0, 1.0), "1 of its 16000 samples are not numbers"),
        (np.where(np.arange(RATE) < 2, np.inf, LOUD), (0.0, 1.0), "2 of its 16000 samples are not numbers"),
        (LOUD[:0], (0.0, 1.0), "the recording has no sound"),
    ],
)
def test_sound_of_which_no_features_can_be_made(samples, span, reason):
    assert cut(Sound(samples.astype(np.float32)), *span, 0.025).samples == Missing(reason)


def test_sound_that_is_used():
    sound = Sound(LOUD)
    assert np.array_equal(cut(sound, 0.0, 1.05, 0.025).samples, LOUD)
    assert np.array_equal(cut(sound, 0.25, math.inf, 0.025).samples, LOUD[4000:])
    assert cut(sound, 0.5, 0.525, 0.025).warning == ""
    clipped = cut(Sound(np.clip(3 * LOUD, -1, 1)), 0, 1, 0.025)
    assert clipped.warning == f"{100 * np.mean(np.abs(3 * LOUD) >= 0.99):.1f} % of its samples are clipped"


def test_samples_that_are_no_numbers_in_a_file(tmp_path):
    samples = tone(220, 1)
    samples[8000] = np.nan
    path = write_media(tmp_path / "a.wav", samples, codecs=("pcm_f32le", None))
    sound = read_sound(path)
    assert "not numbers" in cut(sound, 0, 1, 0).samples.reason
    assert isinstance(cut(sound, 0.6, 1, 0).samples, np.ndarray)
