"""Made-up corpora in the likeness of MELD and IEMOCAP, for a first run, for tests and for benchmarks.

They share with their models the number and length of conversations, the emotions and their balance, the number of
speakers and the width of features. Nothing in them was measured on people: a score on one says that the code learns,
and nothing about emotions. One seed gives one corpus, by this process:

1. Dialogue. A conversation draws its participants from a cast; a speaker keeps the floor with some probability, else
   one of the others takes it.
2. Emotions. At each utterance the speaker keeps the emotion of their own last utterance (inertia), or takes over that
   of the utterance before (contagion), or feels anew, drawn from the balance of emotions. Copying leaves that balance
   as it is, and makes the neighbours of an utterance tell about it.
3. Views. Text, audio and visual each show the emotion as a point in a latent space of their own: the prototype of the
   emotion, at a strength that varies from utterance to utterance, plus an offset of the speaker, plus noise.
   Prototypes are orthogonal, and further apart in text than in audio, and in audio than in visual.
4. Conflicts. Now and then one modality shows another emotion than the one that is felt (a smile over sad words),
   independently of the other two: only together do they tell.
5. Features. A random matrix maps the latent point to the modality's width; noise is added, and every column gets a
   scale and a shift of its own. A few utterances lack their audio or visual features.

In `synthetic-iemocap4-frames` an utterance is a sequence of frames, 64 wide: text of 5 to 40, like word pieces, audio
of three times as many (the 20 ms frames of real audio are several times more still). Its latent point swells and fades
over the frames, around a peak that falls anywhere, and every frame adds noise of its own before step 5. The mean over
real frames so knows more than any single one, and attention to the frames around the peak knows more than the mean.
Features take 85 MB.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jmer.data.corpus import SPLITS, Card, Conversation, Corpus, build_corpus
from jmer.errors import UserError

LATENT = 16
FEATURE_NOISE = 0.1
OFFSET = 0.8
FRAME_NOISE = 2.0
PEAK = 3.0  # strength of the latent point where it is strongest
SPREAD = 0.08  # how long it stays strong: deviation of the bell around the peak, as a share of the utterance


class Size(NamedTuple):
    """How much a split holds: numbers of conversations and of utterances, utterances of the longest conversation."""

    conversations: int
    utterances: int
    longest: int


@dataclasses.dataclass(frozen=True)
class _View:
    """How one modality shows emotions.

    Attributes:
      separation: length of the prototypes, in standard deviations of the noise.
      conflict: share of utterances that show another emotion.
      missing: share of utterances without features.
    """

    separation: float
    conflict: float
    missing: float


@dataclasses.dataclass(frozen=True)
class _Profile:
    """A corpus to imitate.

    Attributes:
      likeness: what it imitates, for the card.
      counts: emotion -> utterances of the real training split, for the balance.
      sizes: split -> size.
      widths: modality -> width.
      views: modality -> view.
      concentration: of the beta distribution of lengths; higher = more alike.
      casts: split -> the speakers who may take part.
      popularity: a speaker takes part in proportion to 1 / rank^popularity.
      participants: fewest and most speakers of a conversation, and the mean number beyond the fewest.
      floor: probability that a speaker goes on.
      inertia: probability that an emotion is kept.
      contagion: probability that an emotion is taken over.
      frames: modality -> fewest and most frames of an utterance; None = an utterance is one vector.
    """

    likeness: str
    counts: Mapping[str, int]
    sizes: Mapping[str, Size]
    widths: Mapping[str, int]
    views: Mapping[str, _View]
    concentration: float
    casts: Mapping[str, range]
    popularity: float
    participants: tuple[int, int, float]
    floor: float
    inertia: float
    contagion: float
    frames: Mapping[str, tuple[int, int]] | None = None

    @property
    def emotions(self) -> tuple[str, ...]:
        return tuple(self.counts)


_MELD = _Profile(
    likeness="MELD",
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
    casts=dict.fromkeys(SPLITS, range(260)),
    popularity=1.0,
    participants=(2, 9, 1.0),
    floor=0.2,
    inertia=0.35,
    contagion=0.2,
)

_IEMOCAP6 = _Profile(
    likeness="IEMOCAP with six emotions",
    counts={"happy": 504, "sad": 839, "neutral": 1324, "angry": 933, "excited": 742, "frustrated": 1468},
    sizes={"train": Size(108, 5229, 110), "validation": Size(12, 581, 90), "test": Size(31, 1623, 100)},
    widths={"text": 1024, "audio": 1582, "visual": 342},
    views={"text": _View(1.7, 0.1, 0.0), "audio": _View(1.3, 0.2, 0.001), "visual": _View(1.0, 0.25, 0.01)},
    concentration=10.0,
    casts={"train": range(8), "validation": range(8), "test": range(8, 10)},
    popularity=0.0,
    participants=(2, 2, 0.0),
    floor=0.3,
    inertia=0.65,
    contagion=0.15,
)

_IEMOCAP4 = dataclasses.replace(
    _IEMOCAP6,
    likeness="IEMOCAP with four emotions",
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
    """Makes up a corpus; the same arguments give the same corpus.

    Args:
      name: one of `NAMES`.
      seed: of everything random.
      sizes: split -> size; None = those of the corpus that is imitated.
      widths: modality -> width, any of text, audio and visual; None = those of the corpus that is imitated.

    Raises:
      UserError: if there is no such corpus, or a size is impossible.
    """
    if name not in _PROFILES:
        raise UserError(f"no synthetic corpus '{name}': the names are {', '.join(NAMES)}")
    profile = _PROFILES[name]
    profile = dataclasses.replace(profile, sizes=sizes or profile.sizes, widths=widths or profile.widths)
    rng = np.random.default_rng([seed, NAMES.index(name)])
    cast = max(members.stop for members in profile.casts.values())
    draws = {m: _Modality.draw(rng, profile, m, cast) for m in profile.widths}
    splits = {split: list(_conversations(rng, profile, split, size, draws)) for split, size in profile.sizes.items()}
    card = Card(
        name=name,
        widths=dict(profile.widths),
        emotions=profile.emotions,
        provenance=f"Made up by jmer.data.synthetic with seed {seed} in the likeness of {profile.likeness}; not real.",
        synthetic=True,
        frames=profile.frames is not None,
    )
    return build_corpus(splits, card)


def _conversations(
    rng: np.random.Generator, profile: _Profile, split: str, size: Size, modalities: Mapping[str, "_Modality"]
) -> Iterator[Conversation]:
    lengths = _lengths(rng, split, size, profile.concentration)
    speakers, emotions = _dialogues(rng, profile, lengths, profile.casts[split])
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


def _between(fewest: int, most: int, share: np.ndarray) -> np.ndarray:
    return fewest + np.rint(share * (most - fewest)).astype(np.int64)


def _lengths(rng: np.random.Generator, split: str, size: Size, concentration: float) -> np.ndarray:
    """Draws lengths between 1 and the longest, which is reached, with exactly the total that the size asks for."""
    count, total, longest = size
    if not (count >= 1 and longest >= 1 and longest + count - 1 <= total <= count * longest):
        raise UserError(
            f"size of split '{split}' is impossible: {count} conversations, the longest of {longest}, "
            f"cannot hold {total} utterances; change one of the three"
        )
    mean = np.clip((total / count - 1) / max(longest - 1, 1), 0.01, 0.99)
    share = rng.beta(concentration * mean, concentration * (1 - mean), count)
    lengths = 1 + np.rint(share * (longest - 1)).astype(np.int64)
    lengths[rng.integers(count)] = longest
    reached = lengths.argmax()
    while excess := lengths.sum() - total:
        movable = (lengths > 1 if excess > 0 else lengths < longest) & (np.arange(count) != reached)
        moved = rng.permutation(np.flatnonzero(movable))[: abs(excess)]
        lengths[moved] -= np.sign(excess)
    return lengths


def _dialogues(
    rng: np.random.Generator, profile: _Profile, lengths: np.ndarray, cast: range
) -> tuple[np.ndarray, np.ndarray]:
    """Draws who speaks and what they feel, for all conversations side by side.

    Returns:
      Speaker and emotion of every utterance, int64 `[sum(lengths)]` each, conversation after conversation.
    """
    count, longest = len(lengths), lengths.max()
    balance = np.array(list(profile.counts.values())) / sum(profile.counts.values())
    fewest, most, beyond = profile.participants
    seats = np.minimum(fewest + rng.poisson(beyond, count), most)
    # The largest of log-weights plus Gumbel noise are a weighted draw without replacement.
    weights = -profile.popularity * np.log(np.arange(1, len(cast) + 1))
    members = cast.start + np.argsort(-(weights + rng.gumbel(size=(count, len(cast)))), axis=1)[:, :most]

    every = np.arange(count)
    seat = np.zeros(count, np.int64)
    emotion = rng.choice(len(balance), count, p=balance)
    felt = np.full((count, most), -1)  # emotion of each participant's last utterance
    speakers, emotions = np.empty((2, count, longest), np.int64)
    for t in range(longest):
        if t > 0:
            seat = np.where(rng.random(count) < profile.floor, seat, (seat + 1 + rng.integers(seats - 1)) % seats)
            own, drawn = felt[every, seat], rng.random(count)
            kept = (drawn < profile.inertia) & (own >= 0)
            caught = (drawn >= profile.inertia) & (drawn < profile.inertia + profile.contagion)
            fresh = rng.choice(len(balance), count, p=balance)
            emotion = np.where(kept, own, np.where(caught, emotion, fresh))
        felt[every, seat] = emotion
        speakers[:, t], emotions[:, t] = members[every, seat], emotion
    real = np.arange(longest) < lengths[:, None]
    return speakers[real], emotions[real]


@dataclasses.dataclass(frozen=True)
class _Modality:
    """What a modality keeps for all splits.

    Attributes:
      prototypes: `[C, LATENT]`, one per emotion, orthogonal.
      offsets: `[speakers, LATENT]`.
      mixing: `[LATENT, D]`.
      scale: `[D]`.
      shift: `[D]`.
      conflict: share of utterances that show another emotion.
      missing: share of utterances without features.
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
            prototypes=np.float32(view.separation) * np.linalg.qr(normal(LATENT, len(profile.emotions))).Q.T,
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
        """Returns features float32 `[n, D]` and availability bool `[n]` of utterances."""
        features = self._features(rng, self._latent(rng, emotions, speakers))
        available = rng.random(len(emotions)) >= self.missing
        features[~available] = 0
        return features, available

    def frame_view(
        self, rng: np.random.Generator, emotions: np.ndarray, speakers: np.ndarray, counts: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns each utterance's frames, float32 `[counts[i], D]` or none, and availability bool `[n]`."""
        points = self._latent(rng, emotions, speakers)
        available = rng.random(len(emotions)) >= self.missing
        peaks = rng.random(len(emotions))
        frames = []
        for point, peak, count in zip(points, peaks, counts * available, strict=True):
            time = (np.arange(count) + 0.5) / max(count, 1)
            course = np.float32(PEAK) * np.exp(-0.5 * ((time - peak) / SPREAD) ** 2).astype(np.float32)
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
        features += latent @ self.mixing
        return features * self.scale + self.shift
