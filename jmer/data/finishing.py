"""What is done to every corpus that a command makes: labels are removed or merged, a validation split is held out."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np

from jmer.batch import UNLABELLED
from jmer.command import show
from jmer.data.corpus import SPLITS, Corpus, any_labelled, load_saved, save_corpus
from jmer.data.groups import GROUPINGS
from jmer.data.normalization import fit
from jmer.data.outliers import constant_lines
from jmer.data.plausibility import suspicions
from jmer.data.readers.labels import relabelled
from jmer.data.splits import hold_out
from jmer.data.validation import check_card
from jmer.errors import UserError
from jmer.warning import warn


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the new corpus' folder and the flags that `save_finished` reads, but for those of labels."""
    parser.add_argument("dest", type=Path, metavar="DEST", help="a new folder for the corpus")
    parser.add_argument("--name", help="short name of the corpus (default: derived from the source)")
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.1,
        metavar="FRACTION",
        help="if the sources have no validation split, hold out about this fraction of the training utterances, "
        "in whole conversations (default: %(default)s)",
    )
    parser.add_argument(
        "--holdout-by",
        choices=GROUPINGS,
        default="conversation",
        help="what is not divided between training and validation: single conversations; all conversations that are "
        "connected by speakers, so that no speaker is in both; or IEMOCAP's sessions (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of held-out conversations (default: 0)")


def check_new(dest: Path) -> None:
    """Raises UserError if there is something where a corpus is to be written."""
    if dest.exists():
        raise UserError(f"{dest} already exists: give a new folder for the corpus after the sources")


def save_finished(corpus: Corpus, options: argparse.Namespace, notes: Sequence[str] = ()) -> None:
    """Finishes a corpus as flags say, saves it and prints its sizes.

    Args:
      corpus: as it was read.
      options: parsed flags of `add_corpus_arguments` and `jmer.data.readers.labels.add_label_arguments`.
      notes: lines to print after the sizes.

    Raises:
      UserError: if a name or a flag does not fit the corpus; nothing is written then.
    """
    if options.name:
        corpus = dataclasses.replace(corpus, card=dataclasses.replace(corpus.card, name=options.name))
    for line in suspicions({split: corpus.conversations(split) for split in corpus.splits}):
        warn(line)
    corpus, more = relabelled(corpus, options.unlabelled, options.merge)
    check_card(corpus.card)  # which --name and --merge changed
    corpus, held_out = _with_validation(corpus, options.holdout, options.seed, options.holdout_by)
    save_corpus(corpus, options.dest)
    show("\n".join([_description(load_saved(options.dest), options.dest, held_out), *notes, *more]))


def _with_validation(corpus: Corpus, fraction: float, seed: int, by: str) -> tuple[Corpus, bool]:
    """Holds out a validation split if there is none but training labels; also returns whether it did.

    A corpus that has folds and nothing else to test is for cross-validation, where each fold holds out its own.
    """
    splits = {split: corpus.conversations(split) for split in corpus.splits}
    only_folds = bool(corpus.folds) and "test" not in splits
    if "validation" in splits or only_folds or not any_labelled(splits.get("train", ())):
        return corpus, False
    unit = "whole conversations" if by == "conversation" else f"held out by {by}"
    note = f"Validation: {unit}, about {fraction:.0%} of the training utterances, seed {seed}."
    card = dataclasses.replace(corpus.card, provenance=f"{corpus.card.provenance} {note}")
    held_out = {c.id for c in hold_out(splits, fraction=fraction, seed=seed, by=by)["validation"]}
    chosen = np.array([c.id in held_out for c in splits["train"]])
    train = corpus.splits["train"]
    rows = corpus.splits | {
        "train": train.select(np.flatnonzero(~chosen)),
        "validation": train.select(np.flatnonzero(chosen)),
    }
    ordered = datasets.DatasetDict({split: rows[split] for split in SPLITS if split in rows})
    return dataclasses.replace(corpus, splits=ordered, card=card), True


def _description(corpus: Corpus, dest: Path, held_out: bool) -> str:
    widths = ", ".join(f"{modality} {width}" for modality, width in corpus.card.widths.items())
    lines = [
        f"wrote {corpus.card.name} to {dest}: {widths}; {len(corpus.card.emotions)} emotions",
        f"{'':12}{'conversations':>14}{'utterances':>12}{'labelled':>10}",
    ]
    notes = [f"folds: {', '.join(corpus.folds)}"] if corpus.folds else []
    for split in corpus.splits:
        conversations = corpus.conversations(split)
        labels = np.concatenate([c.labels for c in conversations])
        lines.append(
            f"{split:12}{len(conversations):14}{labels.size:12}{np.count_nonzero(labels != UNLABELLED):10}"
            + "  held out of train" * (held_out and split == "validation")
        )
        for name, (low, high) in corpus.card.attributes.items():
            found = sum(np.count_nonzero(~np.isnan(c.attributes[name])) for c in conversations)
            notes.append(f"{split}: {name} ({low:g} to {high:g}) of {found} utterances")
        for modality in corpus.card.modalities:
            missing = sum(np.count_nonzero(~c.available[modality]) for c in conversations)
            if missing:
                notes.append(f"{split}: {modality} unavailable in {missing} of {labels.size} utterances")
    if "train" in corpus.splits:
        notes += constant_lines(fit(corpus.conversations("train"), corpus.card.widths))
    return "\n".join(lines + notes)
