"""A bounded sample of a split as plain tables, which checks of the corpus compare."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jmer.data.corpus import Conversation, Corpus
from jmer.data.frames import mean_pooled
from jmer.data.normalization import apply, fit

MOST_UTTERANCES = {"train": 20000, "validation": 5000, "test": 5000}
WIDEST = 384
CLIP = 10.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """The utterances of a split, or of conversations drawn from it, one after the other.

    Attributes:
      conversations: `K` conversations.
      features: modality -> float32 `[N, D]`, in standard deviations of the training split, zero where unavailable; a
        modality wider than `WIDEST` is projected at random, which keeps distances and what is linear.
      available: modality -> bool `[N]`.
      labels: int32 `[N]`.
      owners: int `[N]`, the conversation of each utterance.
      total: utterances of the whole split.
    """

    conversations: Sequence[Conversation]
    features: Mapping[str, np.ndarray]
    available: Mapping[str, np.ndarray]
    labels: np.ndarray
    owners: np.ndarray
    total: int

    def only(self, conversations: np.ndarray) -> "Sample":
        """Returns the part of some conversations, a bool for each."""
        kept = conversations[self.owners]
        return Sample(
            conversations=[c for c, there in zip(self.conversations, conversations, strict=True) if there],
            features={m: values[kept] for m, values in self.features.items()},
            available={m: there[kept] for m, there in self.available.items()},
            labels=self.labels[kept],
            owners=(np.cumsum(conversations) - 1)[self.owners[kept]],
            total=self.total,
        )


def make_samples(corpus: Corpus) -> dict[str, Sample]:
    """Returns split -> sample; the corpus has a training split."""
    drawn = {split: _drawn(corpus.conversations(split), MOST_UTTERANCES[split]) for split in corpus.splits}
    if corpus.card.frames:
        drawn = {split: (mean_pooled(chosen), total) for split, (chosen, total) in drawn.items()}
    statistics = fit(drawn["train"][0], corpus.card.widths, clip=CLIP)
    return {
        split: _sample(apply(chosen, statistics), corpus.card.widths, total) for split, (chosen, total) in drawn.items()
    }


def _drawn(conversations: Sequence[Conversation], most: int) -> tuple[list[Conversation], int]:
    """Returns conversations at random, in order, with at most so many utterances, and the utterances of all."""
    order = np.random.default_rng(0).permutation(len(conversations))
    sizes = np.array([len(conversations[i]) for i in order])
    kept = order[np.cumsum(sizes) <= max(most, sizes[0])]
    return [conversations[i] for i in sorted(kept)], int(sizes.sum())


def _sample(conversations: Sequence[Conversation], widths: Mapping[str, int], total: int) -> Sample:
    return Sample(
        conversations=conversations,
        features={m: narrowed(np.concatenate([c.features[m] for c in conversations])) for m in widths},
        available={m: np.concatenate([c.available[m] for c in conversations]) for m in widths},
        labels=np.concatenate([c.labels for c in conversations]),
        owners=np.repeat(np.arange(len(conversations)), [len(c) for c in conversations]),
        total=total,
    )


def narrowed(values: np.ndarray) -> np.ndarray:
    """Projects features `[N, D]` at random to `WIDEST` columns if they are wider, always in the same way."""
    width = values.shape[1]
    if width <= WIDEST:
        return values
    projection = np.random.default_rng(width).standard_normal((width, WIDEST), np.float32)
    return values @ (projection / np.float32(np.sqrt(WIDEST)))
