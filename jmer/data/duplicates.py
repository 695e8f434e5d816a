"""Conversations and utterances of one split that are in another one, too."""

import re
from collections import defaultdict
from collections.abc import Iterator
from math import comb, log

import numpy as np
from scipy.stats import hypergeom

from jmer.data.findings import NOTE, WARNING, Finding
from jmer.data.samples import Sample

CHECK = "duplicates"
TRAINED, CHOSEN = "training has seen them", "the epoch is chosen on them"
NEAR = 0.05
"""Distance, as a fraction of its own length, within which a feature vector is taken for another one."""
FEWEST_WORDS = 4
FEWEST_UTTERANCES = 3
CHANCE = 0.01
"""Probability of a copied conversation by chance from which on it is reported."""
STOCK = 100
"""Matches in training beyond which an utterance is a stock phrase, which says nothing."""
RISE, TIMES = 0.01, 1.5
"""By how much and how many times more often than inside training utterances must recur to be copies."""
_CHUNK = 512


def duplicate_findings(
    split: str, outside: Sample, training: Sample, level: float, *, reference: str = "train", seen: str = TRAINED
) -> Iterator[Finding]:
    """Yields what a split shares with training: recordings, the words of whole conversations, single utterances.

    A match has near features in every modality (the same file, be it rounded), or the same words: near text features or
    the same sentence. Short sentences recur by nature, so the rate of matches is compared with that between training
    conversations.

    Args:
      split: name of the split.
      outside: its sample.
      training: sample of the training split.
      level: probability of a rise by chance from which on it is reported.
      reference: name of the split that `training` is a sample of, if it is another one.
      seen: what was done with that split.
    """
    features, words = _feature_matches(outside, training)
    copied = _copied_conversations(features, outside, training)
    remove = f"{seen}: remove them"
    yield _conversation_finding(split, copied, outside, f"the same features as one of {reference}", WARNING, remove)
    if words is not None:
        meaning = (
            "a script or a copy in other features: scores on these words are scores on known words; keep such "
            "conversations in one split"
        )
        spoken = _copied_conversations(words, outside, training)
        spoken = {i: j for i, j in spoken.items() if i not in copied}
        yield _conversation_finding(split, spoken, outside, f"the same words as one of {reference}", NOTE, meaning)
    matched = np.isin(np.arange(len(outside.owners)), features[0])
    rest = ~np.isin(outside.owners, list(copied))
    measured, recur = _recurrence(matched, rest, training, len(outside.conversations), level, reference)
    if not recur:
        yield Finding(CHECK, split, measured)
    else:
        yield Finding(CHECK, split, measured, WARNING, f"more than recur inside {reference}; {remove}")


def repeated_finding(training: Sample) -> Finding:
    """Counts the training conversations that are copies of others, features and all."""
    copies = len(training.conversations) - len(set(first_copies(training).tolist()))
    measured = f"{copies} of {len(training.conversations)} conversations are exact copies of others in train"
    if not copies:
        return Finding(CHECK, "train", measured)
    return Finding(CHECK, "train", measured, NOTE, "they count as often as they are there")


def first_copies(sample: Sample) -> np.ndarray:
    """Returns for each conversation the first one with exactly the same features, int `[K]`; itself without any."""
    known: dict[bytes, int] = {}
    tables = [np.concatenate([*c.features.values()], axis=1) for c in sample.conversations]
    return np.array([known.setdefault(x.tobytes(), i) if x.any() else i for i, x in enumerate(tables)])


def _conversation_finding(
    split: str, copied: dict[int, int], outside: Sample, what: str, verdict: str, meaning: str
) -> Finding:
    count, total = len(copied), len(outside.conversations)
    measured = f"{count} of {total} conversations have mostly {what}"
    if not copied:
        return Finding(CHECK, split, measured)
    named = ", ".join(f"'{outside.conversations[i].id}'" for i in list(copied)[:3])
    return Finding(CHECK, split, f"{measured} ({named}{', ...' * (count > 3)})", verdict, meaning)


def _recurrence(
    matched: np.ndarray, rest: np.ndarray, training: Sample, conversations: int, level: float, reference: str
) -> tuple[str, bool]:
    """Describes how many of the other utterances recur in training; also whether more do than inside training."""
    found, total = int((matched & rest).sum()), int(rest.sum())
    measured = f"{found} of {total} other utterances have the features of one of {reference}"
    count = len(training.conversations)
    if not found or count < 2:
        return measured, False
    drawn = np.random.default_rng(0).permutation(count) < min(conversations, count // 2)
    held, others = training.only(drawn), training.only(~drawn)
    usual, size = len(np.unique(_feature_matches(held, others)[0][0])), len(held.owners)
    rate, usual_rate = found / total, usual / size
    chance = hypergeom.sf(found - 1, total + size, found + usual, total)
    recur = chance <= level and rate >= max(usual_rate + RISE, TIMES * usual_rate)
    return f"{measured} ({100 * rate:.1f} %; inside {reference} {100 * usual_rate:.1f} %)", recur


def _feature_matches(outside: Sample, training: Sample) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns pairs of utterances `[2, P]`, outside and in training, with near features in every modality they have.

    Also those with the same words, None where these are unknown or text is the only modality.
    """
    found = {
        m: _near(outside.features[m], training.features[m], outside.available[m], training.available[m])
        for m in training.features
    }
    size = len(training.owners)
    every = np.unique(np.concatenate(list(found.values())))
    for m, codes in found.items():
        i, j = np.divmod(every, size)
        every = every[np.isin(every, codes) | ~(outside.available[m][i] | training.available[m][j])]
    words = _same_sentences(outside, training)
    if "text" in found and len(found) > 1:
        words = np.union1d(words, found["text"])
    known = words.size or len(found) > 1
    return np.stack(np.divmod(every, size)), np.stack(np.divmod(words, size)) if known else None


def _near(a: np.ndarray, b: np.ndarray, a_there: np.ndarray, b_there: np.ndarray) -> np.ndarray:
    """Returns `i * len(b) + j` of the rows of `a` and `b` that are near each other, ascending."""
    codes = []
    b_squares = np.square(b).sum(1)
    for start in range(0, len(a), _CHUNK):
        part = a[start : start + _CHUNK]
        squares = np.square(part).sum(1)
        distances = squares[:, None] + b_squares - 2 * (part @ b.T)
        close = (distances < NEAR**2 * squares[:, None]) & b_there & a_there[start : start + _CHUNK, None]
        close[close.sum(1) > STOCK] = False
        rows, columns = np.nonzero(close)
        codes.append((start + rows) * len(b) + columns)
    return np.concatenate(codes)


def _same_sentences(outside: Sample, training: Sample) -> np.ndarray:
    known = defaultdict(list)
    for j, sentence in enumerate(_sentences(training)):
        if sentence:
            known[sentence].append(j)
    size = len(training.owners)
    codes = [
        i * size + j
        for i, sentence in enumerate(_sentences(outside))
        if sentence and len(known.get(sentence, ())) <= STOCK
        for j in known.get(sentence, ())
    ]
    return np.array(codes, np.int64)


def _sentences(sample: Sample) -> Iterator[str]:
    """Yields the words of each utterance without case and punctuation; "" where they are few."""
    for conversation in sample.conversations:
        for sentence in conversation.sentences:
            words = re.findall(r"\w+", sentence.lower())
            yield " ".join(words) if len(words) >= FEWEST_WORDS else ""


def _copied_conversations(pairs: np.ndarray, outside: Sample, training: Sample) -> dict[int, int]:
    """Returns conversations outside -> the one in training that has at least half of their utterances, not by chance.

    An utterance that `k` of `K` training conversations have, is in one of them with probability `k / K`; the chance
    that a conversation has `n` of `N` is the product, times the number of ways to choose them and of pairs to look at.
    Conversations that have all utterances in common are copies, whatever the chance.
    """
    if not pairs.size:
        return {}
    utterances, owners = np.unique(np.stack([pairs[0], training.owners[pairs[1]]]), axis=1)
    _, own, frequencies = np.unique(utterances, return_inverse=True, return_counts=True)
    surprise = np.log(len(training.conversations) / frequencies)[own]
    both, own, counts = np.unique(
        np.stack([outside.owners[utterances], owners]), axis=1, return_inverse=True, return_counts=True
    )
    surprises = np.bincount(own, surprise)
    copied = {}
    for i, j, count, value in zip(*both.tolist(), counts.tolist(), surprises.tolist(), strict=True):
        length = len(outside.conversations[i])
        whole = count == length == len(training.conversations[j])
        ways = log(comb(length, count) * len(training.conversations) * len(outside.conversations))
        if count >= max(FEWEST_UTTERANCES, length / 2) and (whole or value - ways > -log(CHANCE)):
            copied[i] = j
    return copied
