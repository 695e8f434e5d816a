"""`python -m jmer.data.convert FORMAT SOURCE... DEST`: converts feature files of other formats into a saved corpus."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np

from jmer.batch import UNLABELLED
from jmer.command import Parser, exit_status, show
from jmer.data.corpus import SPLITS, Corpus, any_labelled, load_saved, save_corpus
from jmer.data.groups import GROUPINGS
from jmer.data.normalization import fit
from jmer.data.outliers import constant_lines
from jmer.data.plausibility import suspicions
from jmer.data.readers import Reader, dag_json, emotion2vec, feature_pickles, frame_files, limits, meld_csv, table
from jmer.data.readers.conventions import warn
from jmer.data.readers.labels import relabelled
from jmer.data.splits import hold_out
from jmer.data.validation import check_card
from jmer.errors import UserError

PROGRAM = "python -m jmer.data.convert"

FORMATS: dict[str, Reader] = {
    "table": table,
    "pickle": feature_pickles,
    "dag-json": dag_json,
    "meld-csv": meld_csv,
    "frames": frame_files,
    "emotion2vec": emotion2vec,
}


def convert(arguments: Sequence[str], *, program: str = PROGRAM) -> None:
    """Converts feature files into a saved corpus and prints its sizes.

    Args:
      arguments: the command line without the program's name.
      program: its name, for the help.

    Raises:
      UserError: if an argument or a source is invalid; nothing is written then.
    """
    outer = Parser(prog=program, description="Converts feature files of other formats into a saved corpus.")
    outer.add_argument("format", choices=FORMATS, help=f"format of the sources; `{program} FORMAT --help` describes it")
    outer.add_argument("arguments", nargs=argparse.REMAINDER, metavar="SOURCE... DEST")
    chosen = outer.parse_args(arguments)
    reader = FORMATS[chosen.format]
    options = _parser(f"{program} {chosen.format}", reader).parse_intermixed_args(chosen.arguments)
    if options.dest.exists():
        raise UserError(f"{options.dest} already exists: give a new folder for the corpus after the sources")
    corpus = reader.read(options.sources, options)
    if options.name:
        corpus = dataclasses.replace(corpus, card=dataclasses.replace(corpus.card, name=options.name))
    for line in suspicions({split: corpus.conversations(split) for split in corpus.splits}):
        warn(line)
    corpus, notes = relabelled(corpus, options.unlabelled, options.merge)
    check_card(corpus.card)  # which --name and --merge changed
    corpus, held_out = _with_validation(corpus, options.holdout, options.seed, options.holdout_by)
    save_corpus(corpus, options.dest)
    show("\n".join([_description(load_saved(options.dest), options.dest, held_out), *notes]))


def _parser(program: str, reader: Reader) -> Parser:
    parser = Parser(
        prog=program,
        description=reader.__doc__,
        epilog=limits.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="a file or folder to read")
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
    reader.add_arguments(parser)
    return parser


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
        for modality in corpus.card.modalities:
            missing = sum(np.count_nonzero(~c.available[modality]) for c in conversations)
            if missing:
                notes.append(f"{split}: {modality} unavailable in {missing} of {labels.size} utterances")
    if "train" in corpus.splits:
        notes += constant_lines(fit(corpus.conversations("train"), corpus.card.widths))
    return "\n".join(lines + notes)


if __name__ == "__main__":
    sys.exit(exit_status(convert, sys.argv[1:]))
