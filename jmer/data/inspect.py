"""`python -m jmer.data.inspect CORPUS`: prints the contents of a corpus, its defects and, on request, a probe."""

import functools
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from jmer.batch import UNLABELLED
from jmer.command import Parser, exit_status, show
from jmer.data.attributes import values_of
from jmer.data.corpus import Card, Conversation, Corpus
from jmer.data.findings import Finding
from jmer.data.frames import available_rows
from jmer.data.load import load_corpus
from jmer.data.probing import probe
from jmer.data.synthetic import NAMES
from jmer.data.validation import defects, shortened, validate_corpus

LINE_WIDTH = 100
QUARTILES = ("shortest", "first quartile", "median", "third quartile", "longest")


def inspect(arguments: Sequence[str], *, program: str = "python -m jmer.data.inspect") -> None:
    """Prints the contents and the defects of a corpus.

    Args:
      arguments: the command line without the program's name.
      program: its name, for the help.

    Raises:
      UserError: if the corpus does not exist or cannot be read.
    """
    parser = Parser(prog=program, description="Prints the contents of a corpus and its defects.")
    parser.add_argument("corpus", help=f"folder of a corpus, or the name of a built-in one: {', '.join(NAMES)}")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also look for what leaks from training into the other splits (modalities that were learnt on training "
        "labels, duplicates) and for shifts (labels, features, speakers in common); takes seconds",
    )
    options = parser.parse_args(arguments)
    corpus = load_corpus(options.corpus)
    show(describe(corpus))
    if options.probe:
        validate_corpus(corpus)
        show(f"\n{describe_findings(probe(corpus))}")


def describe(corpus: Corpus) -> str:
    """Returns tables of the sizes, lengths, speakers, emotions and features of a corpus, and its defects."""
    card, fingerprint = corpus.card, corpus.identity.fingerprint
    splits = {split: corpus.conversations(split) for split in corpus.splits}
    found = defects(splits, card, folds=corpus.folds)
    columns = splits | ({"all": list(chain(*splits.values()))} if len(splits) > 1 else {})
    kind = "synthetic" if card.synthetic else "real"
    return "\n\n".join(
        [
            textwrap.fill(f"{card.name} ({kind}). {card.provenance}", LINE_WIDTH),
            _aligned([["", *columns], *_sizes(list(columns.values()))]),
            _aligned([["emotion", *columns], *_emotions(list(columns.values()), card)]),
            _aligned(
                [
                    ["features", "width", "unavailable", "constant columns", "lowest", "highest"],
                    *(
                        _features(split, conversations, modality, width)
                        for modality, width in card.widths.items()
                        for split, conversations in splits.items()
                    ),
                ]
            ),
            *([_aligned(_frames(splits, card))] if card.frames else ()),
            *([_aligned(_attributes(columns, card))] if card.attributes else ()),
            f"fingerprint: {fingerprint}, of the contents without transcripts, name and place",
            "\n".join(["defects:" if found else "defects: none", *map(_wrapped, shortened(found))]),
        ]
    )


def describe_findings(findings: Sequence[Finding]) -> str:
    """Returns a table of findings, and what each means that is not fine."""
    if not findings:
        return "probe: no training split to compare with"
    columns = [max(len(cell) for cell in column) + 2 for column in zip(*map(_head, findings), strict=True)]
    indent = " " * sum(columns)
    lines = ["probe:"]
    for finding in findings:
        head = "".join(cell.ljust(width) for cell, width in zip(_head(finding), columns, strict=True))
        text = f"{finding.measured}: {finding.meaning}" if finding.meaning else finding.measured
        lines.append(textwrap.fill(text, LINE_WIDTH, initial_indent=head, subsequent_indent=indent))
    return "\n".join(lines)


def _head(finding: Finding) -> tuple[str, str, str]:
    return finding.verdict, finding.check, finding.subject


def _sizes(columns: Sequence[Sequence[Conversation]]) -> list[list[str]]:
    lengths = [np.array([len(c) for c in conversations]) for conversations in columns]
    quartiles = np.array([np.quantile(values, np.linspace(0, 1, 5)) for values in lengths])
    speakers = [[len(set(c.speakers)) for c in conversations] for conversations in columns]
    return [
        ["conversations", *(str(len(conversations)) for conversations in columns)],
        ["utterances", *(str(values.sum()) for values in lengths)],
        *(
            [f"utterances per conversation, {name}", *(f"{value:g}" for value in values)]
            for name, values in zip(QUARTILES, quartiles.T, strict=True)
        ),
        ["speakers per conversation, most", *(str(max(counts)) for counts in speakers)],
        ["names of speakers", *(str(len({s for c in conversations for s in c.speakers})) for conversations in columns)],
    ]


def _attributes(columns: Mapping[str, Sequence[Conversation]], card: Card) -> list[list[str]]:
    """Returns how many utterances have a value of each attribute, and its mean and standard deviation over them."""
    rows = [["attribute", *columns]]
    for name, (low, high) in card.attributes.items():
        values = [np.concatenate([values_of(c, name) for c in conversations]) for conversations in columns.values()]
        labelled = [x[~np.isnan(x)].astype(np.float64) for x in values]
        cells = [f"{len(x)}, {x.mean():.2f} ± {x.std():.2f}" if len(x) else "0" for x in labelled]
        rows.append([f"{name} ({low:g} to {high:g})", *cells])
    return rows


def _emotions(columns: Sequence[Sequence[Conversation]], card: Card) -> list[list[str]]:
    """Returns the counts of each emotion, with their percentages of the labelled utterances."""
    labels = [np.concatenate([c.labels for c in conversations]) for conversations in columns]
    labelled = [int(np.count_nonzero(values != UNLABELLED)) for values in labels]

    def cell(values: np.ndarray, total: int, emotion: int) -> str:
        count = np.count_nonzero(values == emotion)
        return f"{count}  {count / max(total, 1):6.1%}"

    return [
        *(
            [name, *(cell(values, total, emotion) for values, total in zip(labels, labelled, strict=True))]
            for emotion, name in enumerate(card.emotions)
        ),
        ["unlabelled", *(f"{values.size - total}{'':8}" for values, total in zip(labels, labelled, strict=True))],
    ]


def _features(split: str, conversations: Sequence[Conversation], modality: str, width: int) -> list[str]:
    parts = [rows for c in conversations for rows in available_rows(c, modality) if len(rows)]
    missing = sum(np.count_nonzero(~c.available[modality]) for c in conversations)
    if not parts:
        return [f"{modality}, {split}", str(width), str(missing), "-", "-", "-"]
    lowest = functools.reduce(np.minimum, (rows.min(axis=0) for rows in parts))
    highest = functools.reduce(np.maximum, (rows.max(axis=0) for rows in parts))
    constant = np.count_nonzero(lowest == highest)
    extremes = [f"{lowest.min():.4g}", f"{highest.max():.4g}"]
    return [f"{modality}, {split}", str(width), str(missing), str(constant), *extremes]


def _frames(splits: Mapping[str, Sequence[Conversation]], card: Card) -> list[list[str]]:
    """Returns statistics of the number of frames, over the utterances that have any."""
    rows = [["frames per utterance", "fewest", "median", "most", "total"]]
    for modality in card.modalities:
        for split, conversations in splits.items():
            counts = [len(frames) for c in conversations for frames in c.features[modality] if len(frames)]
            numbers = [f"{f(counts):g}" for f in (min, np.median, max)] if counts else ["-"] * 3
            rows.append([f"{modality}, {split}", *numbers, str(sum(counts))])
    return rows


def _wrapped(line: str) -> str:
    return textwrap.fill(line, LINE_WIDTH, initial_indent="  ", subsequent_indent="    ")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Aligns cells in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_status(inspect, sys.argv[1:]))
