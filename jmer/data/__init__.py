"""Corpora on disk and in memory, their checks, and padded batches."""

from jmer.batch import Batch
from jmer.data.batching import batch_layout, batches, bucket_lengths, locate, plan_padded, real_fraction
from jmer.data.corpus import Card, Conversation, Corpus, save_corpus
from jmer.data.examples import make_examples
from jmer.data.findings import Finding
from jmer.data.in_memory import make_conversation, make_corpus
from jmer.data.load import load_configured, load_corpus
from jmer.data.packing import Packing, PlannedBatch, make_packing, plan_packed
from jmer.data.probing import probe
from jmer.data.resident import Resident, gather, make_resident
from jmer.data.splits import hold_out
from jmer.data.validation import checked_corpus, defects

__all__ = [
    "Batch",
    "Card",
    "Conversation",
    "Corpus",
    "Finding",
    "Packing",
    "PlannedBatch",
    "Resident",
    "batch_layout",
    "batches",
    "bucket_lengths",
    "checked_corpus",
    "defects",
    "gather",
    "hold_out",
    "load_configured",
    "load_corpus",
    "locate",
    "make_conversation",
    "make_corpus",
    "make_examples",
    "make_packing",
    "make_resident",
    "plan_packed",
    "plan_padded",
    "probe",
    "real_fraction",
    "save_corpus",
]
