"""Corpora: conversations on disk, their checks, and padded batches."""

from jmer.batch import Batch
from jmer.data.batching import PlannedBatch, batches, bucket_lengths, plan_epoch, useful_share
from jmer.data.corpus import Card, Conversation, Corpus, make_corpus, save_corpus
from jmer.data.registry import load_corpus
from jmer.data.resident import Resident, gather, make_resident
from jmer.data.splits import hold_out
from jmer.data.validation import checked_corpus, defects

__all__ = [
    "Batch",
    "Card",
    "Conversation",
    "Corpus",
    "PlannedBatch",
    "Resident",
    "batches",
    "bucket_lengths",
    "checked_corpus",
    "defects",
    "gather",
    "hold_out",
    "load_corpus",
    "make_corpus",
    "make_resident",
    "plan_epoch",
    "save_corpus",
    "useful_share",
]
