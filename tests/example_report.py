"""A report of two splits with missing values, unlabelled utterances, and text that looks like HTML or a template."""

import numpy as np

from jmer.data.corpus import Card, Conversation
from jmer.evaluation.forward import Predictions
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.evaluation.metrics import classification_report
from jmer.evaluation.report import Report, SplitSize
from jmer.selection import get_selection

HOSTILE = "</script><script>window.harmed = 1</script><img src=x onerror='window.harmed = 1'> {{ 7 * 7 }} & \u2028 <!--"
EMOTIONS = ("neutral", "joy & <b>love</b>", "anger", "surprise", "sadness", "disgust", "fear")
CARD = Card("meld", {"text": 6, "audio": 4}, EMOTIONS, f"Made for a test: {HOSTILE}", False)
HISTORY = [
    {"epoch": 1, "train/loss": 2.0, "train/loss_task": 1.9, "train/weighted_f1": 0.2, "validation/weighted_f1": 0.3},
    {"epoch": 2, "train/loss": None, "train/loss_task": 0.9, "train/weighted_f1": 0.4, "validation/weighted_f1": 0.5},
    {"epoch": 3, "train/loss": 1.0, "train/loss_task": 0.7, "train/weighted_f1": 0.5, "validation/weighted_f1": 0.4},
]


def conversation(name, length, rng):
    """Draws a conversation in which some labels and some audio features are missing."""
    available = {"text": np.ones(length, bool), "audio": rng.random(length) < 0.7}
    return Conversation(
        id=name,
        utterances=[f"{name}_{i}" for i in range(length)],
        speakers=[("Ann", "Bob <i>")[i % 2] for i in range(length)],
        labels=np.where(rng.random(length) < 0.2, -1, rng.integers(0, len(EMOTIONS), length)).astype(np.int32),
        features={m: np.zeros((length, d), np.float32) for m, d in CARD.widths.items()},
        available=available,
        sentences=[HOSTILE, "Supercalifragilisticexpialidocious" * 3, *["What did you say?"] * length][:length],
    )


def predicted_split(prefix, lengths, rng) -> PredictedSplit:
    """Draws conversations and predictions, about half of which are correct."""
    conversations = [conversation(f"{prefix}/{i} é&=", length, rng) for i, length in enumerate(lengths)]
    probabilities = []
    for c in conversations:
        logits = rng.normal(size=(len(c), len(EMOTIONS))) + 2 * (np.arange(len(EMOTIONS)) == c.labels[:, None])
        probabilities.append((np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32))
    weights = {m: [rng.random(len(c)).astype(np.float32) for c in conversations] for m in sorted(CARD.widths)}
    attention = {"atmosphere": [rng.dirichlet(np.ones(len(c) + 1))[1:].astype(np.float32) for c in conversations]}
    return PredictedSplit(conversations, Predictions(probabilities, weights, attention))


def labels(split: PredictedSplit) -> np.ndarray:
    return np.concatenate([c.labels for c in split.conversations])


def guesses(split: PredictedSplit) -> np.ndarray:
    return np.concatenate(split.predictions.probabilities).argmax(1)


def report_and_splits() -> tuple[Report, dict[str, PredictedSplit]]:
    """Returns the arguments of `write_html_report`; the training split has scores but no predictions."""
    rng = np.random.default_rng(0)
    splits = {"validation": predicted_split("v", [5, 3], rng), "test": predicted_split("t", [9, 1, 24, 6, 4], rng)}
    scores = {split: classification_report(labels(found), guesses(found), EMOTIONS) for split, found in splits.items()}
    report = Report(
        model="LFVD",
        card=CARD,
        sizes={split: SplitSize(len(found.conversations), 40, 30) for split, found in splits.items()},
        scores={"train": scores["test"], **scores},
        selection=get_selection("validation"),
        epoch=2,
        epochs=3,
        history=HISTORY,
        config={"model": {"width": 300}, "path": None},
        versions={"jmer": "0.1.0"},
        command=f"python -m jmer.main --config configs/lfvd_meld.py {HOSTILE}",
        parameters=1234567,
        seconds=192.4,
    )
    return report, splits
