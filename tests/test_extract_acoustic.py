"""The acoustic features: pitch of known sounds, a transcription of the equations, and what changes nothing."""

import pickle

import numpy as np
import pytest
from media import tone

from jmer.extract import acoustic
from jmer.extract.acoustic import Acoustic, describe_frames, summarise
from jmer.extract.protocol import RATE
from jmer.extract.registry import make_extractor

PITCH, VOICED = 41, 42
STATISTICS = ["mean", "sd", "p10", "p90", "change"]


def semitones(frequency):
    return 12 * np.log2(frequency / 27.5)


def noise(seconds, level=0.1, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def statistic(features, name, column):
    """Returns a statistic of one of the 42 columns that are summarised."""
    return features[STATISTICS.index(name) * 42 + column]


@pytest.mark.parametrize("frequency", [76, 80, 100, 110, 146.7, 220, 300, 440, 490])
def test_the_pitch_of_a_tone(frequency):
    values = describe_frames(tone(frequency, 0.5))
    assert values[:, VOICED].all()
    assert np.abs(values[:, PITCH] - semitones(frequency)).max() < 0.02


def test_a_tone_of_220_hertz_is_three_octaves_above_27_5():
    features = Acoustic()(tone(220, 1))
    assert features[-1] == 1
    assert statistic(features, "mean", PITCH) == pytest.approx(36, abs=0.001)
    for name, value in (("sd", 0), ("p10", 36), ("p90", 36), ("change", 0)):
        assert statistic(features, name, PITCH) == pytest.approx(value, abs=0.001)
    # Band 3 has its middle at 218 Hz.
    assert features[:40].argmax() == 3


@pytest.mark.parametrize("frequency", [90, 120, 215, 330])
@pytest.mark.parametrize("harmonics", [range(1, 9), range(2, 9)], ids=["with fundamental", "without"])
def test_the_pitch_of_a_voice_is_its_fundamental(frequency, harmonics):
    sound = sum(tone(frequency * h, 0.5, level=0.3 / h) for h in harmonics) + noise(0.5, 0.005)
    values = describe_frames(sound)
    assert values[:, VOICED].mean() > 0.95
    assert np.abs(values[values[:, VOICED] > 0, PITCH] - semitones(frequency)).max() < 0.2


def test_the_pitch_of_a_glide():
    seconds, low, high = 2.0, 120.0, 300.0
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.5 * np.sin(2 * np.pi * (low * time + (high - low) / (2 * seconds) * time**2))
    values = describe_frames(sound.astype(np.float32))
    middle = (np.arange(len(values)) * 160 + 319.5) / RATE
    assert np.abs(values[:, PITCH] - semitones(low + (high - low) * middle / seconds)).max() < 0.1
    features = summarise(values)
    assert statistic(features, "mean", PITCH) == pytest.approx(values[:, PITCH].mean())
    assert statistic(features, "change", PITCH) == pytest.approx(
        (values[-1, PITCH] - values[0, PITCH]) / (len(values) - 1), rel=0.01
    )


def test_noise_has_its_variance_in_every_band_and_no_pitch():
    values = describe_frames(noise(10, 0.1))
    assert not values[:, VOICED].any() and not values[:, PITCH].any()
    assert np.abs(np.log(np.exp(values[:, :40]).mean(0)) - np.log(0.01)).max() < 0.1
    assert values[:, 40].mean() == pytest.approx(np.log(0.01), abs=0.01)


@pytest.mark.parametrize("sound", [np.zeros(RATE, np.float32), np.full(RATE, 0.25, np.float32)], ids=["0", "0.25"])
def test_silence(sound):
    features = Acoustic()(sound)
    assert np.isfinite(features).all()
    assert np.allclose(features[:41], np.log(1e-10), atol=1e-4)
    assert np.allclose(features[[41, *range(42, 84), -1]], 0, atol=1e-4)


def frame_by_definition(frame):
    """Transcribes the equations of the docstring for one frame, without Fourier transforms of libraries."""
    frame = frame.astype(np.float64)
    frame = frame - frame.mean()
    energy = np.log(np.sum(frame**2) / 640 + 1e-10)
    middle = frame[120:520] - frame[120:520].mean()
    window = np.array([np.sin(np.pi * (n + 0.5) / 400) ** 2 for n in range(400)])
    n, k = np.arange(400), np.arange(257)[:, None]
    power = np.abs((np.exp(-2j * np.pi * k * n / 512) * middle * window).sum(1)) ** 2 / (window**2).sum()
    low, high = (2595 * np.log10(1 + f / 700) for f in (20, 8000))
    corners = [700 * (10 ** ((low + (high - low) * i / 41) / 2595) - 1) for i in range(42)]
    bands = []
    for m in range(40):
        left, top, right = corners[m : m + 3]
        weights = np.zeros(257)
        for k in range(257):
            f = k * 31.25
            if left < f <= top:
                weights[k] = (f - left) / (top - left)
            elif top < f < right:
                weights[k] = (right - f) / (right - top)
        bands.append(np.log((weights * power).sum() / weights.sum() + 1e-10))
    v = np.sin(np.pi * (np.arange(640) + 0.5) / 640) ** 2
    x = v * frame

    def r(lag):
        of_sound = (x[: 640 - lag] * x[lag:]).sum() / (x * x).sum()
        return of_sound / ((v[: 640 - lag] * v[lag:]).sum() / (v * v).sum())

    peaks = []
    for lag in range(32, 214):
        a, b, c = r(lag - 1), r(lag), r(lag + 1)
        if a < b >= c:
            curve = np.polyfit([-1, 0, 1], [a, b, c], 2)
            shift = -curve[1] / (2 * curve[0])
            peaks.append((np.polyval(curve, shift), lag + shift))
    height, period = max(peaks, key=lambda peak: peak[0] - 0.01 * np.log2(peak[1]), default=(0, 1))
    if height < 0.45 or np.mean(frame**2) < 1e-8:
        return [*bands, energy, 0.0, 0.0]
    return [*bands, energy, 12 * np.log2(16000 / period / 27.5), 1.0]


def talk():
    """Returns something between tone and noise, in which some frames are voiced."""
    return tone(180, 0.6, level=0.2) * np.linspace(0, 1, 9600, dtype=np.float32) + noise(0.6, 0.05)


def test_frames_are_as_defined():
    sound = talk()
    values = describe_frames(sound)
    assert len(values) == 1 + (len(sound) - 640) // 160
    expected = np.array([frame_by_definition(sound[i * 160 : i * 160 + 640]) for i in range(len(values))])
    assert 0.2 < expected[:, VOICED].mean() < 0.9
    assert np.allclose(values, expected, rtol=1e-9, atol=1e-9)


def test_statistics_are_as_defined():
    values = describe_frames(talk())
    voiced = values[:, VOICED] == 1
    columns = []
    for c in range(42):
        column = values[voiced, c] if c == PITCH else values[:, c]
        pairs = [i for i in range(len(values) - 1) if c != PITCH or (voiced[i] and voiced[i + 1])]
        mean = sum(column) / len(column)
        ordered = sorted(column)

        def percentile(share, ordered=ordered):
            place = share * (len(ordered) - 1)
            low = int(place)
            return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])

        change = sum(abs(values[i + 1, c] - values[i, c]) for i in pairs) / len(pairs)
        deviation = (sum((v - mean) ** 2 for v in column) / len(column)) ** 0.5
        columns.append([mean, deviation, percentile(0.1), percentile(0.9), change])
    expected = [*np.array(columns).T.ravel(), voiced.sum() / len(voiced)]
    assert np.allclose(summarise(values), expected, rtol=1e-9, atol=1e-9)


def test_one_voiced_frame_has_no_changes():
    values = np.zeros((3, 43))
    values[1, [PITCH, VOICED]] = 30, 1
    features = summarise(values)
    assert [statistic(features, name, PITCH) for name in STATISTICS] == [30, 0, 30, 30, 0]
    assert features[-1] == pytest.approx(1 / 3)


def test_twice_as_loud():
    soft, loud = (Acoustic()(gain * talk()) for gain in (1, 2))
    more = np.zeros((5, 42))
    more[[0, 2, 3], :41] = np.log(4)
    assert np.allclose(loud - soft, [*more.ravel(), 0], atol=1e-3)


def test_a_constant_offset_changes_nothing():
    assert np.allclose(Acoustic()(talk() + 0.1), Acoustic()(talk()), atol=1e-3)


def test_silence_at_the_ends_counts():
    sound = tone(220, 1)
    alone, padded = Acoustic()(sound), Acoustic()(np.append(sound, np.zeros(RATE, np.float32)))
    assert padded[-1] == pytest.approx(0.5, abs=0.02) and alone[-1] == 1
    assert statistic(padded, "mean", PITCH) == pytest.approx(statistic(alone, "mean", PITCH), abs=0.1)
    # Less than a hop is less than a frame.
    assert np.array_equal(Acoustic()(np.append(sound, np.zeros(159, np.float32))), alone)


def test_frames_do_not_depend_on_what_follows(monkeypatch):
    sound = talk()
    values = describe_frames(sound)
    assert np.allclose(describe_frames(sound[: 160 * 9 + 640]), values[:10], rtol=1e-12, atol=1e-12)
    assert np.allclose(describe_frames(sound[160 * 5 :]), values[5:], rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(acoustic, "FRAMES_AT_ONCE", 7)
    assert np.allclose(describe_frames(sound), values, rtol=1e-12, atol=1e-12)


def test_the_extractor():
    whole, frames = make_extractor("acoustic", "audio"), make_extractor("acoustic,pooling=none", "audio")
    assert (whole.width, whole.frames, frames.width, frames.frames) == (211, False, 43, True)
    assert whole.identity["extractor"] == "acoustic" and whole.identity != frames.identity
    sound = talk()
    features = frames(sound)
    assert features.shape == (57, 43) and features.dtype == np.float32
    assert np.array_equal(features, describe_frames(sound).astype(np.float32))
    assert whole(sound).shape == (211,) and whole(sound).dtype == np.float32
    assert np.array_equal(pickle.loads(pickle.dumps(whole))(sound), whole(sound))
    shortest = round(whole.shortest * RATE)
    assert frames(sound[:shortest]).shape == (2, 43) and np.isfinite(whole(sound[:shortest])).all()
