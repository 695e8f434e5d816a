"""A few conversations with what is hard, and the batch of them, for tests of models against their equations."""

import functools

import numpy as np
from tiny import WIDTHS, tiny_corpus

from jmer.data.batching import batches


@functools.cache
def conversations():
    """Three conversations, some of whose utterances have no label, or lack a modality or all of them."""
    return tiny_corpus().conversations("train")[:3]


@functools.cache
def batch():
    """The conversations, with garbage where a feature is unavailable."""
    (padded,) = batches(conversations(), WIDTHS, batch_size=3)
    features = {m: np.where(padded.available[m][..., None], x, np.float32(7)) for m, x in padded.features.items()}
    return padded.replace(features=features)
