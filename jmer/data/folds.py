"""Folds of a corpus for cross-validation: which conversations each one trains on, selects by and tests."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import SPLITS, Conversation, Corpus, build_corpus
from jmer.data.groups import group_conversations, session, speaker_identities
from jmer.data.splits import hold_out, labelled_utterances
from jmer.errors import UserError

OWN = "corpus"
LEAVE_ONE_SESSION_OUT = "leave_one_session_out"
LEAVE_ONE_SPEAKER_OUT = "leave_one_speaker_out"


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes:
      name: unique among the folds.
      splits: split -> ids of its conversations. Without a validation split one is held out of the training split.
      speaker: the speaker whose utterances alone are tested, see `jmer.data.groups.speaker_identities`; those of others
        in the test split are context without labels. None = all utterances are tested.
    """

    name: str
    splits: Mapping[str, Sequence[str]]
    speaker: str | None = None


def make_folds(corpus: Corpus, rule: str, *, by: str = "conversation") -> list[Fold]:
    """Returns the folds of a corpus, whose splits do not matter: each conversation is used whatever split it is in.

    Args:
      corpus: all its conversations take part, those without labels in training.
      rule: `corpus`, the folds that the corpus declares; `leave_one_session_out`; `leave_one_speaker_out`, where a fold
        trains on the conversations without its speaker and tests that speaker's utterances alone; or a number of folds,
        of about equally many labelled utterances.
      by: for a number of folds, what stays together, see `jmer.data.groups.group_conversations`.

    Raises:
      UserError: if the rule is unknown or does not fit the corpus, or fewer than two folds come of it.
    """
    conversations = all_conversations(corpus)
    if rule == OWN:
        if not corpus.folds:
            raise UserError(
                f"corpus '{corpus.card.name}' declares no folds: convert a table with --fold or --split-per-fold, or "
                f"choose data.folds={LEAVE_ONE_SESSION_OUT}, {LEAVE_ONE_SPEAKER_OUT} or a number"
            )
        folds = [Fold(name, splits) for name, splits in corpus.folds.items()]
    elif rule == LEAVE_ONE_SESSION_OUT:
        folds = _leave_out([session(c) for c in conversations], conversations)
    elif rule == LEAVE_ONE_SPEAKER_OUT:
        folds = _leave_speakers_out(conversations)
    elif rule.isdecimal():
        folds = _k_folds(conversations, int(rule), by)
    else:
        raise UserError(
            f"data.folds is '{rule}': choose {OWN}, {LEAVE_ONE_SESSION_OUT}, {LEAVE_ONE_SPEAKER_OUT} or a number of "
            "folds"
        )
    if len(folds) < 2:
        raise UserError(f"data.folds={rule} gives fewer than two folds of corpus '{corpus.card.name}'")
    return folds


def fold_corpus(corpus: Corpus, fold: Fold, *, holdout: float = 0.1, by: str = "conversation") -> Corpus:
    """Returns a corpus with the splits of a fold, and a note of it on its card.

    Args:
      corpus: that the fold was made of.
      fold: see `make_folds`.
      holdout: fraction of the training utterances that are held out for validation if the fold has no validation split;
        0 = none are.
      by: what stays together then, see `jmer.data.splits.hold_out`.

    Raises:
      UserError: if nothing can be held out.
    """
    known = {c.id: c for c in all_conversations(corpus)}
    splits = {split: [known[name] for name in fold.splits[split]] for split in SPLITS if split in fold.splits}
    note = f"Fold {fold.name}."
    if fold.speaker is not None:
        splits["test"] = [_only(c, fold.speaker) for c in splits["test"]]
        note = f"Fold {fold.name}: the test split has the labels of this speaker alone."
    if holdout and "validation" not in splits:
        splits = hold_out(splits, fraction=holdout, by=by)
        note += f" Validation: about {holdout:.0%} of the training utterances, held out by {by}."
    card = dataclasses.replace(corpus.card, provenance=f"{corpus.card.provenance} {note}")
    return dataclasses.replace(build_corpus(splits, card), source=corpus.source)


def configured_fold(corpus: Corpus, data: Mapping[str, Any]) -> Corpus:
    """Returns the fold of a corpus that a configuration names; the corpus itself if it names none.

    Args:
      corpus: with its own splits.
      data: the section `data` of the configuration.

    Raises:
      UserError: if there is no such fold.
    """
    if not data["fold"]:
        return corpus
    folds = {fold.name: fold for fold in make_folds(corpus, data["folds"], by=data["holdout_by"])}
    if data["fold"] not in folds:
        raise UserError(f"data.folds={data['folds']} has no fold '{data['fold']}': choose one of {', '.join(folds)}")
    return fold_corpus(corpus, folds[data["fold"]], holdout=data["holdout"], by=data["holdout_by"])


def all_conversations(corpus: Corpus) -> list[Conversation]:
    """Returns the conversations of all splits."""
    return [c for split in corpus.splits for c in corpus.conversations(split)]


def _leave_out(keys: Sequence[str], conversations: Sequence[Conversation]) -> list[Fold]:
    """Returns a fold for each key, which tests the conversations that have it."""
    return [
        _fold(key, {c.id for c, own in zip(conversations, keys, strict=True) if own == key}, conversations)
        for key in sorted(set(keys))
    ]


def _fold(name: str, tested: set[str], conversations: Sequence[Conversation], speaker: str | None = None) -> Fold:
    return Fold(
        name,
        {
            "train": [c.id for c in conversations if c.id not in tested],
            "test": [c.id for c in conversations if c.id in tested],
        },
        speaker,
    )


def _leave_speakers_out(conversations: Sequence[Conversation]) -> list[Fold]:
    takes_part: dict[str, set[str]] = {}
    labelled = set()
    for conversation in conversations:
        for speaker, label in zip(speaker_identities(conversation), conversation.labels, strict=True):
            takes_part.setdefault(speaker, set()).add(conversation.id)
            if label != UNLABELLED:
                labelled.add(speaker)
    everywhere = [name for name, ids in takes_part.items() if len(ids) == len(conversations)]
    if everywhere:
        raise UserError(
            f"speaker '{everywhere[0]}' takes part in every conversation, so that none is left to train on without "
            "them: names that mean another person in each conversation (A, B) are no identities; choose other folds"
        )
    return [_fold(name, takes_part[name], conversations, name) for name in sorted(labelled)]


def _only(conversation: Conversation, speaker: str) -> Conversation:
    """Returns a conversation without the labels of other speakers."""
    theirs = np.array([name == speaker for name in speaker_identities(conversation)])
    return dataclasses.replace(conversation, labels=np.where(theirs, conversation.labels, UNLABELLED).astype(np.int32))


def _k_folds(conversations: Sequence[Conversation], count: int, by: str) -> list[Fold]:
    """Returns folds of about equally many labelled utterances: large groups first, each into the smallest fold."""
    groups = group_conversations(conversations, by)
    sizes = [labelled_utterances(conversations, group) for group in groups]
    labelled = [i for i, size in enumerate(sizes) if size]
    if count < 2:
        return []
    if count > len(labelled):
        what = "labelled conversations" if by == "conversation" else f"groups of labelled conversations by {by}"
        raise UserError(f"data.folds={count}, but there are {len(labelled)} {what}: choose fewer folds")
    shuffled = np.random.default_rng(0).permutation(labelled).tolist()
    tested: list[set[str]] = [set() for _ in range(count)]
    filled = [0] * count
    for i in sorted(shuffled, key=lambda i: -sizes[i]):
        smallest = filled.index(min(filled))
        filled[smallest] += sizes[i]
        tested[smallest] |= {conversations[position].id for position in groups[i]}
    return [_fold(str(number), names, conversations) for number, names in enumerate(tested, 1)]
