"""Corpora whose utterances are sequences of frames: trained utterance by utterance, or pooled to one vector each."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jmer.data.corpus import Conversation


def single_utterances(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Turns every utterance into a conversation of its own, of the same name; nothing is copied, the order stays."""
    return [
        Conversation(
            id=conversation.id,
            utterances=conversation.utterances[own],
            speakers=conversation.speakers[own],
            labels=conversation.labels[own],
            features={m: values[own] for m, values in conversation.features.items()},
            available={m: values[own] for m, values in conversation.available.items()},
            sentences=conversation.sentences[own],
            attributes={name: values[own] for name, values in conversation.attributes.items()},
        )
        for conversation in conversations
        for own in (slice(i, i + 1) for i in range(len(conversation)))
    ]


def mean_pooled(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Turns every utterance's frames `[F_i, D_m]` into their mean `[D_m]`, zero where there are none."""
    return [
        dataclasses.replace(c, features={m: np.stack(list(map(_mean, values))) for m, values in c.features.items()})
        for c in conversations
    ]


def available_rows(conversation: Conversation, modality: str) -> Sequence[np.ndarray]:
    """Returns the feature vectors of available utterances, or of their frames, in arrays `[k, D_m]`."""
    features = conversation.features[modality]
    return [features[conversation.available[modality]]] if isinstance(features, np.ndarray) else features


def _mean(frames: np.ndarray) -> np.ndarray:
    return frames.sum(0) / np.float32(max(len(frames), 1))
