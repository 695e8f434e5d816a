"""How a split differs from training: its emotions, its speakers, its features."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, rankdata

from jmer.batch import UNLABELLED
from jmer.data.corpus import Conversation
from jmer.data.findings import NOTE, WARNING, Finding
from jmer.data.groups import speaker_identities
from jmer.data.linear_probe import conversation_folds, held_out_scores
from jmer.data.resampling import exchange_test
from jmer.data.samples import Sample

LABELS, SPEAKERS = "labels", "speakers"
LABEL_SHIFT = 0.1
"""Fraction of labels that would have to change to make two distributions equal, from which a shift is reported."""
FEATURE_SHIFT = 0.8
"""Area under the curve from which a classifier tells two splits apart."""
EVERYWHERE = 0.8
"""Fraction of the conversations in which a name occurs that stands for a role, not for a person."""
ROLES = re.compile(
    r"\w|\d+|male|female|man|woman|user|system|agent|customer|client|(speaker|person|spk)[\s_-]*\w{0,2}", re.I
)


def label_finding(split: str, outside: Sample, training: Sample, emotions: Sequence[str], level: float) -> Finding:
    """Compares the distributions of labels; chance is what dealing conversations to the splits at random gives."""
    there, here = (_label_counts(sample, len(emotions)) for sample in (outside, training))
    if not len(there) or not len(here):
        return Finding(LABELS, split, "no labels to compare")
    ours, theirs = here.sum(0) / here.sum(), there.sum(0) / there.sum()
    new = [name for name, before, now in zip(emotions, ours, theirs, strict=True) if now and not before]
    if new:
        meaning = "nothing trains these emotions: all such utterances will be wrong"
        return Finding(LABELS, split, f"not in train: {', '.join(new)}", WARNING, meaning)
    distance, most = _distance(ours, theirs), np.abs(theirs - ours).argmax()
    measured = (
        f"{100 * distance:.1f} % differ from train's distribution, most {emotions[most]}: {100 * ours[most]:.1f} % in "
        f"train, {100 * theirs[most]:.1f} % here"
    )
    if distance < LABEL_SHIFT or exchange_test(here, there, _distance) > level:
        return Finding(LABELS, split, measured)
    meaning = "more than chance: weighted scores of this split and of train are not comparable"
    return Finding(LABELS, split, measured, NOTE, meaning)


def speaker_finding(split: str, outside: Sample, training: Sample) -> Finding:
    """Counts the utterances of a split whose speakers are in training; names of roles are no persons."""
    spoken = [name for c in outside.conversations for name in speaker_identities(c)]
    known = {name for c in training.conversations for name in speaker_identities(c)}
    roles = _roles((*outside.conversations, *training.conversations))
    persons = set(spoken) - roles
    if not persons:
        return Finding(SPEAKERS, split, f"not known: {', '.join(sorted(roles)[:4])} are names of roles")
    share = np.mean([name in known and name in persons for name in spoken])
    shared = f"{len(persons & known)} of {len(persons)} speakers"
    measured = f"{shared} are in train, with {100 * share:.1f} % of the utterances"
    if not share:
        return Finding(SPEAKERS, split, measured)
    meaning = "scores are those of speakers that training knows; hold out by speaker to test on new ones"
    return Finding(SPEAKERS, split, measured, NOTE, meaning)


def feature_shift(outside: np.ndarray, training: np.ndarray, owners: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns how well a linear classifier tells the conversations of two samples apart, held out ones.

    Args:
      outside, training: features `[N, D]`.
      owners: the conversation of each utterance, outside and in training, from 0.

    Returns:
      The area under the curve, .5 = not at all, and its probability by chance (van Elteren's test over the folds).
    """
    features = np.concatenate([outside, training])
    # Larger or smaller values on both sides are a shift that no linear function of the features sees.
    size = np.log1p(np.square(features).sum(1, keepdims=True))
    features = np.concatenate([features, (size - size.mean()) / max(size.std(), 1e-6)], axis=1)
    _, first = np.unique(owners[0], return_inverse=True)
    _, second = np.unique(owners[1], return_inverse=True)
    joint = np.concatenate([first, first.max() + 1 + second])
    origin = (np.arange(joint.max() + 1) <= first.max()).astype(int)
    folds = conversation_folds(joint, strata=origin)
    scores, _ = held_out_scores(features, origin[joint], folds, 2)
    means = np.bincount(joint, scores[:, 1] - scores[:, 0]) / np.bincount(joint)
    fold = np.zeros(len(origin), int)
    fold[joint] = folds
    wins = pairs = variance = 0.0
    for k in np.unique(fold):
        ranks, ours = rankdata(means[fold == k]), origin[fold == k] == 1
        n, m = ours.sum(), (~ours).sum()
        wins += ranks[ours].sum() - n * (n + 1) / 2
        pairs += n * m
        variance += n * m * (n + m + 1) / 12
    if not pairs:
        return 0.5, 1.0
    return wins / pairs, float(norm.sf((wins - pairs / 2) / np.sqrt(variance)))


def _label_counts(sample: Sample, emotions: int) -> np.ndarray:
    """Returns the labels of each conversation that has any, `[K, C]`."""
    counts = np.zeros((len(sample.conversations), emotions))
    labelled = sample.labels != UNLABELLED
    np.add.at(counts, (sample.owners[labelled], sample.labels[labelled]), 1)
    return counts[counts.any(1)]


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the total variation distance between distributions, of counts `[..., C]`."""
    shares = (counts / np.maximum(counts.sum(-1, keepdims=True), 1) for counts in (one, other))
    return np.abs(np.subtract(*shares)).sum(-1) / 2


def _roles(conversations: Sequence[Conversation]) -> set[str]:
    """Returns the names that stand for a role, such as A or agent, since no person is in nearly every conversation."""
    given = [set(c.speakers) & set(speaker_identities(c)) for c in conversations]
    names = Counter(name for of_conversation in given for name in of_conversation)
    return {n for n, count in names.items() if ROLES.fullmatch(n) or count > EVERYWHERE * len(conversations)}
