"""Acoustic features in NumPy alone: the spectrum on the mel scale, energy and pitch."""

import dataclasses
import functools

import numpy as np

from jmer.extract.protocol import RATE, SoundExtractor

BANDS = 40
LOWEST, HIGHEST = 20.0, 8000.0
"""Hz, edges of the first and of the last band."""
FLOOR = 1e-10
"""Added to powers before the logarithm: -100 dB, about the noise of 16 bits."""

FRAME, HOP = 640, 160
"""Samples: 40 ms, every 10 ms."""
SPECTRUM_FRAME, SPECTRUM_SIZE = 400, 512
"""Samples in the middle of a frame, 25 ms, and the size of their Fourier transform."""

SHORTEST_LAG, LONGEST_LAG = 32, 213
"""Samples: periods of 500 and 75 Hz."""
CORRELATION_SIZE = 1024
"""At least `FRAME + LONGEST_LAG`, so that correlations do not wrap around."""
VOICED = 0.45
"""Correlation from which on a frame is voiced."""
OCTAVE_COST = 0.01
"""By how much, per octave, a higher pitch is preferred."""
QUIET = 1e-8
"""Power below which no frame is voiced."""
REFERENCE = 27.5
"""Hz, the note A0: semitone 0."""

COLUMNS = BANDS + 2
"""Columns that are summarised: the bands, energy and pitch."""
FRAMES_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class Acoustic(SoundExtractor):
    r"""Statistics of mel bands, energy and pitch over an utterance, without weights: a default that runs anywhere.

    Each frame :math:`x_0 \dots x_{639}` (40 ms, every 10 ms, only such as lie within the utterance: nothing is padded),
    its mean subtracted, gives 43 values:

    - log-mel bands 0 to 39: with the Hann window :math:`w_n = \sin^2(\pi (n + 1/2) / 400)` over its middle 400 samples,
      of which the mean is subtracted, and their discrete Fourier transform :math:`X_k` of 512 points,

      .. math:: \ln\Bigl(\sum_k H_{mk} |X_k|^2 \big/ \sum_n w_n^2 + 10^{-10}\Bigr)

      where :math:`H_m` is a triangle whose corners are three neighbours of 42 points that lie at equal distances on the
      scale :math:`2595 \log_{10}(1 + f / 700)` between 20 and 8000 Hz, with :math:`\sum_k H_{mk} = 1`: white noise of
      variance :math:`\sigma^2` has about :math:`\ln \sigma^2` in every band;
    - energy: :math:`\ln(\frac{1}{640} \sum_n x_n^2 + 10^{-10})`;
    - pitch in semitones above 27.5 Hz: :math:`12 \log_2(F_0 / 27.5)` if the frame is voiced, otherwise 0. With
      :math:`r_x(\tau) = \sum_n v_n x_n v_{n+\tau} x_{n+\tau}`, where :math:`v` is the Hann window of 640 samples, and
      :math:`r_v` likewise of the window alone, the correlation (Boersma 1993) is

      .. math:: r(\tau) = \frac{r_x(\tau)}{r_x(0)} \Big/ \frac{r_v(\tau)}{r_v(0)}

      Among its local maxima at lags of 32 to 213 samples (500 to 75 Hz), each refined by the parabola through it and
      its neighbours, the one with the largest :math:`r(\tau) - 0.01 \log_2 \tau` is the period;
    - voiced: 1 if :math:`r(\tau) \ge 0.45` there and the frame's power is at least :math:`10^{-8}`, otherwise 0.

    An utterance has 211 values: the means over its frames of the 40 bands, energy and pitch; their standard deviations;
    10th percentiles; 90th percentiles; mean absolute changes from frame to frame; and the share of voiced frames. Those
    of pitch are of voiced frames, and of changes between neighbours that are both voiced; 0 if there are none. Silence
    at the ends of an utterance counts as a part of it. Twice as loud sound has ln 4 more in the means and percentiles
    of bands and energy, and the same pitch.

    Attributes:
      pooling: statistics, or none for the 43 values of each frame.
    """

    pooling: str = "statistics"

    name = "acoustic"
    poolings = ("statistics", "none")
    licence = "none: jmer's own, without weights"
    shortest = (FRAME + HOP) / RATE

    @property
    def width(self) -> int:
        return COLUMNS + 1 if self.frames else 5 * COLUMNS + 1

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        values = describe_frames(sound)
        return (values if self.frames else summarise(values)).astype(np.float32)


def describe_frames(sound: np.ndarray) -> np.ndarray:
    """Returns the bands, energy, pitch and voicing of frames, float64 `[F, 43]`; see `Acoustic`."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    parts = (frames[start : start + FRAMES_AT_ONCE] for start in range(0, len(frames), FRAMES_AT_ONCE))
    return np.concatenate([_described(part.astype(np.float64)) for part in parts])


def summarise(values: np.ndarray) -> np.ndarray:
    """Returns the statistics of frames `[F, 43]`, `[211]`; see `Acoustic`."""
    voiced = values[:, -1] > 0
    spectrum, pitch = values[:, : COLUMNS - 1], values[:, COLUMNS - 1]
    changes = np.abs(np.diff(pitch))[voiced[1:] & voiced[:-1]]
    of_spectrum = _statistics(spectrum, np.abs(np.diff(spectrum, axis=0)))
    of_pitch = _statistics(pitch[voiced][:, None], changes[:, None])
    return np.append(np.concatenate([of_spectrum, of_pitch], axis=1).ravel(), voiced.mean())


def _described(frames: np.ndarray) -> np.ndarray:
    frames = frames - frames.mean(1, keepdims=True)
    energy = np.square(frames).mean(1)
    pitch, voiced = _pitch(frames, energy)
    return np.column_stack([np.log(_mel_powers(frames) + FLOOR), np.log(energy + FLOOR), pitch, voiced])


def _mel_powers(frames: np.ndarray) -> np.ndarray:
    edge = (FRAME - SPECTRUM_FRAME) // 2
    middle = frames[:, edge : edge + SPECTRUM_FRAME]
    window = _hann(SPECTRUM_FRAME)
    spectrum = np.fft.rfft((middle - middle.mean(1, keepdims=True)) * window, SPECTRUM_SIZE)
    powers = np.square(spectrum.real) + np.square(spectrum.imag)
    return powers @ _mel_filters().T / np.square(window).sum()


def _pitch(frames: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pitch of frames in semitones, 0 where they are not voiced, and whether they are."""
    window = _hann(FRAME)
    correlation = _correlation(frames * window) / _correlation(window[None])
    middle, before, after = correlation[:, 1:-1], correlation[:, :-2], correlation[:, 2:]
    maximal = (middle > before) & (middle >= after)
    bend = np.where(maximal, 2 * middle - before - after, 1.0)
    shift = (after - before) / (2 * bend)
    height = middle + (after - before) * shift / 4
    period = np.arange(SHORTEST_LAG, LONGEST_LAG + 1) + shift
    score = np.where(maximal, height - OCTAVE_COST * np.log2(np.where(maximal, period, 1.0)), -np.inf)
    best = score.argmax(1)[:, None]
    found = maximal & (height >= VOICED) & (energy >= QUIET)[:, None]
    voiced = np.take_along_axis(found, best, 1)[:, 0]
    chosen = np.where(voiced, np.take_along_axis(period, best, 1)[:, 0], 1.0)
    return np.where(voiced, 12 * np.log2(RATE / chosen / REFERENCE), 0.0), voiced


def _correlation(frames: np.ndarray) -> np.ndarray:
    """Returns the correlations of frames with themselves, from one lag before the shortest to one after the longest."""
    spectrum = np.fft.rfft(frames, CORRELATION_SIZE)
    products = np.fft.irfft(np.square(spectrum.real) + np.square(spectrum.imag), CORRELATION_SIZE)
    # Of a frame of zeros, all are 0.
    return products[:, SHORTEST_LAG - 1 : LONGEST_LAG + 2] / np.maximum(products[:, :1], np.finfo(np.float64).tiny)


def _statistics(values: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Returns mean, standard deviation, percentiles and mean change of columns, `[5, C]`; 0 of nothing."""
    found = np.zeros((5, values.shape[1]))
    if len(values):
        found[:4] = values.mean(0), values.std(0), *np.percentile(values, (10, 90), axis=0)
    if len(changes):
        found[4] = changes.mean(0)
    return found


def _hann(size: int) -> np.ndarray:
    return np.square(np.sin(np.pi * (np.arange(size) + 0.5) / size))


@functools.cache
def _mel_filters() -> np.ndarray:
    """Returns the triangles `[BANDS, SPECTRUM_SIZE // 2 + 1]`."""
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (LOWEST, HIGHEST))
    mels = np.linspace(low, high, BANDS + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)
    bins = np.arange(SPECTRUM_SIZE // 2 + 1) * RATE / SPECTRUM_SIZE
    left, middle, right = (corners[i : i + BANDS, None] for i in range(3))
    filters = np.maximum(np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)), 0)
    return filters / filters.sum(1, keepdims=True)
