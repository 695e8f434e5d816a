"""A probe of a corpus: what leaks from training into the other splits, and how these differ from it.

A linear classifier is trained on each modality and on all together. Inside training it is scored by cross-validation
over whole conversations, on the other splits as a model would be. A modality that scores far better inside was learnt
on the training labels, or meets another distribution outside. Beside it: duplicates, speakers, labels, features.
Differences are tested by dealing conversations at random, not utterances, which depend on each other; `LEVEL` bounds
the probability of a false alarm over all tests of a kind.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Corpus
from jmer.data.duplicates import CHOSEN, duplicate_findings, first_copies, repeated_finding
from jmer.data.findings import FINE, NOTE, OPEN, WARNING, Finding
from jmer.data.linear_probe import Classifier, conversation_folds, discriminant, held_out_scores
from jmer.data.resampling import Estimate, confusions, estimate, exchange_test, largest_drop, weighted_f1
from jmer.data.samples import Sample, make_samples, narrowed
from jmer.data.shifts import FEATURE_SHIFT, feature_shift, label_finding, speaker_finding

LEVEL = 0.01
FAR_BELOW = 0.15
"""Fall of weighted F1 from inside training to outside that would mislead."""
BELOW = 0.05
TOO_GOOD = 0.8
"""Agreement with the labels, Cohen's kappa, that annotators of emotions do not reach among themselves."""
FEWEST_CONVERSATIONS = 20
"""Labelled training conversations below which cross-validation scores lower than it should."""
PROBE = "linear probe"


_FOUND: dict[tuple[str, ...], tuple[Finding, ...]] = {}  # the contents of a corpus -> its findings


def probe(corpus: Corpus) -> tuple[Finding, ...]:
    """Checks a corpus for leaks and shifts between its splits.

    It takes seconds, and once in a process for the same contents; nothing is random.

    Args:
      corpus: a valid corpus; without a training split there is nothing to compare with.

    Returns:
      What was checked, each with its verdict.
    """
    contents = (*corpus.card.emotions, *(f"{name} {s.fingerprint}" for name, s in corpus.identity.splits.items()))
    if contents not in _FOUND:
        _FOUND[contents] = tuple(_probed(corpus)) if "train" in corpus.splits else ()
    return _FOUND[contents]


def _probed(corpus: Corpus) -> list[Finding]:
    samples = make_samples(corpus)
    training = samples.pop("train")
    modalities = corpus.card.modalities
    groups = [(m,) for m in modalities] + [modalities] * (len(modalities) > 1)
    findings: list[Finding] = []
    level = LEVEL / max(1, len(groups) * len(samples))
    for split, sample in {"train": training, **samples}.items():
        if sample.total > len(sample.labels):
            measured = f"{len(sample.labels)} of {sample.total} utterances, of conversations drawn at random"
            findings.append(Finding("sample", split, measured))
    for group in groups:
        findings += _probe_findings(group, training, samples, len(corpus.card.emotions), level)
    findings.append(repeated_finding(training))
    for split, outside in samples.items():
        for modality in modalities:
            findings += _shift_finding(modality, split, outside, training, level)
        findings += duplicate_findings(split, outside, training, LEVEL / len(samples))
        findings.append(speaker_finding(split, outside, training))
        findings.append(label_finding(split, outside, training, corpus.card.emotions, LEVEL / len(samples)))
    if {"validation", "test"} <= samples.keys():
        options = {"reference": "validation", "seen": CHOSEN}
        found = duplicate_findings("test", samples["test"], samples["validation"], LEVEL, **options)
        findings += (finding for finding in found if finding.verdict != FINE)
    return findings


def _probe_findings(
    modalities: Sequence[str], training: Sample, others: dict[str, Sample], classes: int, level: float
) -> Iterator[Finding]:
    name = modalities[0] if len(modalities) == 1 else "all modalities"
    rows = _labelled(training, modalities)
    if len(np.unique(training.owners[rows])) < FEWEST_CONVERSATIONS or len(np.unique(training.labels[rows])) < 2:
        measured = f"less than {FEWEST_CONVERSATIONS} labelled conversations, or one emotion: not probed"
        yield Finding(PROBE, f"{name}, train", measured, OPEN)
        return
    features = _features(training, modalities, rows)
    # A copy of a conversation that is scored must not be among those that train the classifier.
    _, owners = np.unique(first_copies(training)[training.owners[rows]], return_inverse=True)
    scores, whole = held_out_scores(features, training.labels[rows], conversation_folds(owners), classes)
    inside = confusions(training.labels[rows], scores.argmax(1), owners, classes)
    yield _inside_finding(name, inside, single=len(modalities) == 1)
    classifier = discriminant(whole)
    for split, sample in others.items():
        outside = _tested(classifier, sample, modalities, classes)
        if len(outside):
            yield _outside_finding(name, split, inside, outside, level)


def _inside_finding(name: str, inside: np.ndarray, *, single: bool) -> Finding:
    measured = f"W-F1 {_range(estimate(inside))}, cross-validated"
    if not single or _kappa(inside.sum(0)) < TOO_GOOD:
        return Finding(PROBE, f"{name}, train", measured)
    meaning = (
        "annotators of emotions agree less than that; its extractor may have learnt from these labels, which only a "
        "split that it has not seen can show, not one that is held out of training"
    )
    return Finding(PROBE, f"{name}, train", measured, NOTE, meaning)


def _outside_finding(name: str, split: str, inside: np.ndarray, outside: np.ndarray, level: float) -> Finding:
    before, after = estimate(inside), estimate(outside)
    subject, measured = f"{name}, {split}", f"W-F1 {_range(after)}, inside training {100 * before.value:.1f}"
    chance = exchange_test(inside, outside, lambda i, o: np.abs(weighted_f1(i) - weighted_f1(o)))
    drop = before.value - after.value
    if chance <= level and drop >= FAR_BELOW:
        meaning = (
            f"its extractor has learnt from the training labels, or {split} is of another kind (see features): models "
            "trust it more than it deserves; extract it without these labels, or leave it out (model.modalities)"
        )
        return Finding(PROBE, subject, measured, WARNING, meaning)
    if chance <= level and drop <= -FAR_BELOW:
        meaning = f"better than inside training: its extractor may have learnt from the labels of {split}"
        return Finding(PROBE, subject, measured, WARNING, meaning)
    if chance <= level and drop >= BELOW:
        return Finding(PROBE, subject, measured, NOTE, "harder than inside training, as new speakers or recordings are")
    if largest_drop(before, after) > FAR_BELOW:
        meaning = f"{len(outside)} conversations are too few to rule out that it falls by {100 * FAR_BELOW:.0f} points"
        return Finding(PROBE, subject, measured, OPEN, meaning)
    return Finding(PROBE, subject, measured)


def _tested(classifier: Classifier, sample: Sample, modalities: Sequence[str], classes: int) -> np.ndarray:
    rows = _labelled(sample, modalities)
    found = classifier.scores(_features(sample, modalities, rows)).argmax(1)
    return confusions(sample.labels[rows], found, sample.owners[rows], classes)


def _shift_finding(modality: str, split: str, outside: Sample, training: Sample, level: float) -> Iterator[Finding]:
    there, here = outside.available[modality], training.available[modality]
    if not there.any() or not here.any():
        return
    owners = outside.owners[there], training.owners[here]
    area, chance = feature_shift(outside.features[modality][there], training.features[modality][here], owners)
    measured = f"area under the curve {area:.2f} (0.5 = not told apart from train)"
    if area < FEATURE_SHIFT or chance > level:
        yield Finding("features", f"{modality}, {split}", measured)
        return
    meaning = "other speakers, other recordings or another extractor: scores are those of data of another kind"
    yield Finding("features", f"{modality}, {split}", measured, NOTE, meaning)


def _available(sample: Sample, modalities: Sequence[str]) -> np.ndarray:
    return np.any([sample.available[m] for m in modalities], axis=0)


def _labelled(sample: Sample, modalities: Sequence[str]) -> np.ndarray:
    return (sample.labels != UNLABELLED) & _available(sample, modalities)


def _features(sample: Sample, modalities: Sequence[str], rows: np.ndarray) -> np.ndarray:
    return narrowed(np.concatenate([sample.features[m][rows] for m in modalities], axis=1))


def _kappa(confusion: np.ndarray) -> float:
    """Returns Cohen's kappa of a confusion matrix."""
    shares = confusion / confusion.sum()
    chance = shares.sum(0) @ shares.sum(1)
    return float((np.trace(shares) - chance) / (1 - chance))


def _range(score: Estimate) -> str:
    low, high = score.interval
    return f"{100 * score.value:.1f} (95 %: {100 * low:.1f} to {100 * high:.1f})"
