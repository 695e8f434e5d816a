"""Synthetic corpora that imitate MELD and IEMOCAP, for a first run, for tests and for benchmarks.

They have the numbers and lengths of conversations, the emotions and their frequencies, the numbers of speakers and the
widths of features of the corpora that they imitate. No data of people are in them: a score on one shows that the code
learns, and nothing about emotions. The same seed gives the same corpus, by this process:

1. Dialogue. The participants of a conversation are drawn from a set of speakers; a speaker continues with some
   probability, otherwise one of the others is next.
2. Emotions. At each utterance the speaker keeps the emotion of their own last utterance (inertia), or adopts that of
   the previous utterance (contagion), or has a new one, drawn with the frequencies of the emotions. Copying leaves the
   frequencies unchanged and makes the neighbours of an utterance informative.
3. Modalities. Text, audio and visual each express the emotion as a point in a latent space of their own: the prototype
   of the emotion, with a strength that varies between utterances, plus an offset of the speaker, plus noise. Prototypes
   are orthogonal, and further apart in text than in audio, and in audio than in visual.
4. Conflicts. With a small probability a modality expresses another emotion than the label (a smile with sad words),
   independently of the others, so that only several modalities together identify the emotion.
5. Features. A random matrix maps the latent point to the width of the modality; noise is added, and each column gets a
   scale and a shift. A few utterances lack their audio or visual features.

In `synthetic-iemocap4-frames` an utterance is a sequence of frames of width 64: 5 to 40 in text, like word pieces, and
three times as many in audio (real audio has still more frames of 20 ms). The latent point rises and falls over the
frames around a peak at a random position, and each frame has noise of its own before step 5. The mean over the real
frames is therefore more informative than any single one, and attention to the frames around the peak more than the
mean. Its features take 85 MB.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jmer.data.corpus import SPLITS, Card, Conversation, Corpus, Features, build_corpus
from jmer.errors import UserError

LATENT = 16
FEATURE_NOISE = 0.1
OFFSET = 0.8
FRAME_NOISE = 2.0
PEAK = 3.0  # strength of the latent point at its peak
PEAK_WIDTH = 0.08  # standard deviation of the bell around the peak, as a fraction of the utterance


class Size(NamedTuple):
    """Size of a split: numbers of conversations and utterances, and the length of the longest conversation."""

    conversations: int
    utterances: int
    longest: int


@dataclasses.dataclass(frozen=True)
class _View:
    """Parameters of the features of a modality.

    Attributes:
      separation: length of the prototypes, in standard deviations of the noise.
      conflict: probability that an utterance expresses another emotion.
      missing: probability that an utterance has no features.
    """

    separation: float
    conflict: float
    missing: float


@dataclasses.dataclass(frozen=True)
class _Profile:
    """Parameters of a synthetic corpus.

    Attributes:
      imitates: the corpus that it imitates, for the card.
      counts: emotion -> utterances in the real training split, which give the frequencies.
      sizes: split -> size.
      widths: modality -> width.
      views: modality -> parameters of its features.
      concentration: of the beta distribution of lengths; higher = more similar lengths.
      speakers: split -> the speakers from whom participants are drawn.
      popularity: a speaker participates with weight 1 / rank^popularity.
      participants: minimum and maximum number of speakers in a conversation, and the mean number above the minimum.
      continuation: probability that a speaker continues.
      inertia: probability that a speaker keeps an emotion.
      contagion: probability that a speaker adopts the previous emotion.
      frames: modality -> minimum and maximum number of frames; None = an utterance is one vector.
    """

    imitates: str
    counts: Mapping[str, int]
    sizes: Mapping[str, Size]
    widths: Mapping[str, int]
    views: Mapping[str, _View]
    concentration: float
    speakers: Mapping[str, range]
    popularity: float
    participants: tuple[int, int, float]
    continuation: float
    inertia: float
    contagion: float
    frames: Mapping[str, tuple[int, int]] | None = None

    @property
    def emotions(self) -> tuple[str, ...]:
        return tuple(self.counts)


_MELD = _Profile(
    imitates="MELD",
    counts={
        "neutral": 4710,
        "surprise": 1205,
        "fear": 268,
        "sadness": 683,
        "joy": 1743,
        "disgust": 271,
        "anger": 1109,
    },
    sizes={"train": Size(1038, 9989, 24), "validation": Size(114, 1109, 23), "test": Size(280, 2610, 33)},
    widths={"text": 1024, "audio": 300, "visual": 342},
    views={"text": _View(1.6, 0.1, 0.0), "audio": _View(1.2, 0.2, 0.003), "visual": _View(0.9, 0.25, 0.02)},
    concentration=2.7,
    speakers=dict.fromkeys(SPLITS, range(260)),
    popularity=1.0,
    participants=(2, 9, 1.0),
    continuation=0.2,
    inertia=0.35,
    contagion=0.2,
)

_IEMOCAP6 = _Profile(
    imitates="IEMOCAP with six emotions",
    counts={"happy": 504, "sad": 839, "neutral": 1324, "angry": 933, "excited": 742, "frustrated": 1468},
    sizes={"train": Size(108, 5229, 110), "validation": Size(12, 581, 90), "test": Size(31, 1623, 100)},
    widths={"text": 1024, "audio": 1582, "visual": 342},
    views={"text": _View(1.7, 0.1, 0.0), "audio": _View(1.3, 0.2, 0.001), "visual": _View(1.0, 0.25, 0.01)},
    concentration=10.0,
    speakers={"train": range(8), "validation": range(8), "test": range(8, 10)},
    popularity=0.0,
    participants=(2, 2, 0.0),
    continuation=0.3,
    inertia=0.65,
    contagion=0.15,
)

_IEMOCAP4 = dataclasses.replace(
    _IEMOCAP6,
    imitates="IEMOCAP with four emotions",
    counts={"happy": 1194, "sad": 839, "neutral": 1324, "angry": 933},
    sizes={"train": Size(108, 3861, 110), "validation": Size(12, 429, 80), "test": Size(31, 1241, 90)},
)

_IEMOCAP4_FRAMES = dataclasses.replace(
    _IEMOCAP4,
    widths={"text": 64, "audio": 64},
    frames={"text": (5, 40), "audio": (15, 120), "visual": (5, 60)},
)

_PROFILES = {
    "synthetic-meld": _MELD,
    "synthetic-iemocap6": _IEMOCAP6,
    "synthetic-iemocap4": _IEMOCAP4,
    "synthetic-iemocap4-frames": _IEMOCAP4_FRAMES,
}
NAMES = tuple(_PROFILES)


def generate(
    name: str,
    seed: int = 0,
    *,
    sizes: Mapping[str, Size] | None = None,
    widths: Mapping[str, int] | None = None,
) -> Corpus:
    """Generates a synthetic corpus; the same arguments give the same corpus.

    Args:
      name: one of `NAMES`.
      seed: of all random numbers.
      sizes: split -> size; None = those of the imitated corpus.
      widths: modality -> width, for any of text, audio and visual; None = those of the imitated corpus.

    Raises:
      UserError: if there is no such corpus, or a size is impossible.
    """
    if name not in _PROFILES:
        raise UserError(f"no synthetic corpus '{name}': the names are {', '.join(NAMES)}")
    profile = _PROFILES[name]
    profile = dataclasses.replace(profile, sizes=sizes or profile.sizes, widths=widths or profile.widths)
    rng = np.random.default_rng([seed, NAMES.index(name)])
    speaker_count = max(speakers.stop for speakers in profile.speakers.values())
    draws = {m: _Modality.draw(rng, profile, m, speaker_count) for m in profile.widths}
    splits = {split: list(_conversations(rng, profile, split, size, draws)) for split, size in profile.sizes.items()}
    card = Card(
        name=name,
        widths=dict(profile.widths),
        emotions=profile.emotions,
        provenance=f"Generated by jmer.data.synthetic with seed {seed} to imitate {profile.imitates}; not real data.",
        synthetic=True,
        frames=profile.frames is not None,
    )
    return build_corpus(splits, card)


def _conversations(
    rng: np.random.Generator, profile: _Profile, split: str, size: Size, modalities: Mapping[str, "_Modality"]
) -> Iterator[Conversation]:
    lengths = _lengths(rng, split, size, profile.concentration)
    speakers, emotions = _dialogues(rng, profile, lengths, profile.speakers[split])
    views: dict[str, tuple[Features, np.ndarray]]
    if profile.frames is None:
        views = {m: modality.view(rng, emotions, speakers) for m, modality in modalities.items()}
    else:
        duration = rng.beta(1.2, 2.8, len(emotions))
        views = {
            m: modality.frame_view(rng, emotions, speakers, _between(*profile.frames[m], duration))
            for m, modality in modalities.items()
        }
    start = 0
    for number, length in enumerate(lengths):
        own = slice(start, start + length)
        conversation = f"{split}-{number:04d}"
        yield Conversation(
            id=conversation,
            utterances=[f"{conversation}-{i:03d}" for i in range(length)],
            speakers=[f"speaker-{i:03d}" for i in speakers[own]],
            labels=emotions[own].astype(np.int32),
            features={m: features[own] for m, (features, _) in views.items()},
            available={m: available[own] for m, (_, available) in views.items()},
            sentences=[""] * length,
        )
        start += length


def _between(lowest: int, highest: int, fraction: np.ndarray) -> np.ndarray:
    return lowest + np.rint(fraction * (highest - lowest)).astype(np.int64)


def _lengths(rng: np.random.Generator, split: str, size: Size, concentration: float) -> np.ndarray:
    """Draws lengths of at least 1 with the given total, of which the longest is the given maximum."""
    count, total, longest = size
    if not (count >= 1 and longest >= 1 and longest + count - 1 <= total <= count * longest):
        raise UserError(
            f"size of split '{split}' is impossible: {count} conversations, the longest of {longest}, "
            f"cannot hold {total} utterances; change one of the three"
        )
    mean = np.clip((total / count - 1) / max(longest - 1, 1), 0.01, 0.99)
    fractions = rng.beta(concentration * mean, concentration * (1 - mean), count)
    lengths = 1 + np.rint(fractions * (longest - 1)).astype(np.int64)
    lengths[rng.integers(count)] = longest
    reached = lengths.argmax()
    while excess := lengths.sum() - total:
        movable = (lengths > 1 if excess > 0 else lengths < longest) & (np.arange(count) != reached)
        moved = rng.permutation(np.flatnonzero(movable))[: abs(excess)]
        lengths[moved] -= np.sign(excess)
    return lengths


def _dialogues(
    rng: np.random.Generator, profile: _Profile, lengths: np.ndarray, candidates: range
) -> tuple[np.ndarray, np.ndarray]:
    """Draws speakers and emotions of all conversations in parallel.

    Returns:
      Speaker and emotion of every utterance, int64 `[sum(lengths)]` each, in the order of the conversations.
    """
    count, longest = len(lengths), lengths.max()
    balance = np.array(list(profile.counts.values())) / sum(profile.counts.values())
    lowest, highest, mean_extra = profile.participants
    sizes = np.minimum(lowest + rng.poisson(mean_extra, count), highest)
    # Gumbel noise on log-weights: the largest sums are a weighted draw without replacement.
    weights = -profile.popularity * np.log(np.arange(1, len(candidates) + 1))
    noisy_weights = weights + rng.gumbel(size=(count, len(candidates)))
    participants = candidates.start + np.argsort(-noisy_weights, axis=1)[:, :highest]

    every = np.arange(count)
    current = np.zeros(count, np.int64)  # index of the speaker among the participants
    emotion = rng.choice(len(balance), count, p=balance)
    last = np.full((count, highest), -1)  # emotion of the last utterance of each participant
    speakers, emotions = np.empty((2, count, longest), np.int64)
    for t in range(longest):
        if t > 0:
            continues = rng.random(count) < profile.continuation
            current = np.where(continues, current, (current + 1 + rng.integers(sizes - 1)) % sizes)
            own, drawn = last[every, current], rng.random(count)
            kept = (drawn < profile.inertia) & (own >= 0)
            adopted = (drawn >= profile.inertia) & (drawn < profile.inertia + profile.contagion)
            fresh = rng.choice(len(balance), count, p=balance)
            emotion = np.where(kept, own, np.where(adopted, emotion, fresh))
        last[every, current] = emotion
        speakers[:, t], emotions[:, t] = participants[every, current], emotion
    real = np.arange(longest) < lengths[:, None]
    return speakers[real], emotions[real]


@dataclasses.dataclass(frozen=True)
class _Modality:
    """Random parameters of a modality, the same in all splits.

    Attributes:
      prototypes: `[C, LATENT]`, one per emotion, orthogonal.
      offsets: `[speakers, LATENT]`.
      mixing: `[LATENT, D]`.
      scale: `[D]`.
      shift: `[D]`.
      conflict: probability that an utterance expresses another emotion.
      missing: probability that an utterance has no features.
    """

    prototypes: np.ndarray
    offsets: np.ndarray
    mixing: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    conflict: float
    missing: float

    @classmethod
    def draw(cls, rng: np.random.Generator, profile: _Profile, modality: str, speakers: int) -> "_Modality":
        view, width = profile.views[modality], profile.widths[modality]

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(LATENT))

        return cls(
            prototypes=np.float32(view.separation) * _orthonormal(normal(LATENT, len(profile.emotions))).T,
            offsets=np.float32(OFFSET) * normal(speakers, LATENT),
            mixing=normal(LATENT, width),
            scale=rng.lognormal(0, 1, width).astype(np.float32),
            shift=rng.normal(0, 2, width).astype(np.float32),
            conflict=view.conflict,
            missing=view.missing,
        )

    def view(
        self, rng: np.random.Generator, emotions: np.ndarray, speakers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns features float32 `[n, D]` and availability bool `[n]` of `n` utterances."""
        features = self._features(rng, self._latent(rng, emotions, speakers))
        available = rng.random(len(emotions)) >= self.missing
        features[~available] = 0
        return features, available

    def frame_view(
        self, rng: np.random.Generator, emotions: np.ndarray, speakers: np.ndarray, counts: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the frames of `n` utterances, float32 `[counts[i], D]` or none, and availability bool `[n]`."""
        points = self._latent(rng, emotions, speakers)
        available = rng.random(len(emotions)) >= self.missing
        peaks = rng.random(len(emotions))
        frames = []
        for point, peak, count in zip(points, peaks, counts * available, strict=True):
            time = (np.arange(count) + 0.5) / max(count, 1)
            course = np.float32(PEAK) * np.exp(-0.5 * ((time - peak) / PEAK_WIDTH) ** 2).astype(np.float32)
            latent = np.float32(FRAME_NOISE) * rng.standard_normal((count, LATENT), np.float32)
            frames.append(self._features(rng, latent + course[:, None] * point))
        return frames, available

    def _latent(self, rng: np.random.Generator, emotions: np.ndarray, speakers: np.ndarray) -> np.ndarray:
        count, classes = len(emotions), len(self.prototypes)
        another = (emotions + rng.integers(1, classes, count)) % classes
        shown = np.where(rng.random(count) < self.conflict, another, emotions)
        strength = rng.uniform(0.5, 1.5, (count, 1)).astype(np.float32)
        latent = strength * self.prototypes[shown] + self.offsets[speakers]
        latent += rng.standard_normal(latent.shape, np.float32)
        return latent

    def _features(self, rng: np.random.Generator, latent: np.ndarray) -> np.ndarray:
        features = rng.standard_normal((len(latent), len(self.scale)), np.float32)
        features *= np.float32(FEATURE_NOISE)
        # A matrix product, whose sums would depend on the processor, and with them the identity of the corpus.
        for point, row in zip(latent.T, self.mixing, strict=True):
            features += point[:, None] * row
        return features * self.scale + self.shift


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Returns float32 columns that are orthonormal, the same on every processor: rounded from float64."""
    return np.linalg.qr(columns.astype(np.float64)).Q.astype(np.float32)
