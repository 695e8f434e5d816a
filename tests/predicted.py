"""Predictions of an ensemble for two conversations, whose names, speakers and transcripts are hard to write."""

import dataclasses

import numpy as np
from example_report import HOSTILE
from names import KEPT

from jmer.data.corpus import Card, Conversation
from jmer.evaluation.forward import Predictions
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.evaluation.predictions import mean_probabilities
from jmer.evaluation.spread import member_spread
from jmer.evaluation.subtitles import Span

EMOTIONS = ("neutral", "joy & <b>love</b>", "sad", "007", "怒り")
CARD = Card("talk", {"text": 2, "audio": 2}, EMOTIONS, "Made for a test.", False)
ODD = (
    HOSTILE,
    "two\nlines\r\n\r\nand 00:00:01,000 --> 00:00:02,000",
    "1\n00:00:00,000 --> 00:00:01,000\nno caption",
    "NOTE a\tb\x85c\rd",
    "{\\an8}{\\b1}I <3 you & <i>them</i> --> me",
    "",
    "   ",
    "\x00\x1b[2J bell\x07",
    "日本語 👍🏽 עברית",
)


def conversation(name, speakers, sentences):
    count = len(sentences)
    return Conversation(
        id=name,
        utterances=[f"u{i}" for i in range(count)],
        speakers=list(speakers),
        labels=np.full(count, -1, np.int32),
        features={},
        available={"text": np.array([bool(text) for text in sentences]), "audio": np.ones(count, bool)},
        sentences=list(sentences),
    )


CONVERSATIONS = [
    conversation("dia/0 é&=", ["Ann", "Bob <i>"] * 4 + ["Ann"], ODD),
    conversation("日本", KEPT, [f"said by {name[:20]}" for name in KEPT]),
]
TIMES = [
    [Span(2.0 * i, None if i % 3 == 0 else 2.0 * i + 1.5) for i in range(len(ODD))],
    [None if i == 1 else Span(3600.0 + i, 3600.25 + i) for i in range(len(KEPT))],
]


def member(seed, conversations):
    """Probabilities of one member, which differ from the others' a little."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    logits = [2 * shared.normal(size=(len(c), 5)) + own.normal(size=(len(c), 5)) for c in conversations]
    return [(np.exp(x) / np.exp(x).sum(1, keepdims=True)).astype(np.float32) for x in logits]


def predicted(conversations=CONVERSATIONS, times=TIMES, members=3) -> PredictedSplit:
    """Returns the mean of members' predictions, with fusion weights and attention."""
    found = [member(seed + 1, conversations) for seed in range(members)]
    means = mean_probabilities(found)
    rng = np.random.default_rng(9)
    weights = {m: [rng.random(len(c)).astype(np.float32) for c in conversations] for m in CARD.widths}
    attention = {"atmosphere": [np.full(len(c), 1 / len(c), np.float32) for c in conversations]}
    return PredictedSplit(conversations, Predictions(means, weights, attention, member_spread(found, means)), times)


def labelled() -> PredictedSplit:
    """Returns predictions of which the first has a gold label."""
    first = dataclasses.replace(CONVERSATIONS[0], labels=np.array([2, *[-1] * (len(ODD) - 1)], np.int32))
    return predicted([first, CONVERSATIONS[1]])
