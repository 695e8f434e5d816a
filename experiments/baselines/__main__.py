"""Scores a logistic regression over neighbouring utterances, a baseline for conversation models.

    python -m experiments.baselines CORPUS [--context 3] [--modalities text,audio]

Prints the scores of the validation split, for each modality alone and all together, without context and with it. See
`experiments.baselines.context_regression` for the method; a second run prints the same.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.baselines.context_regression import regress
from jmer.command import Parser, exit_status, show
from jmer.data.load import load_corpus
from jmer.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Prints the table. Raises UserError if a flag or the corpus is invalid."""
    parser = Parser(
        prog="python -m experiments.baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", metavar="CORPUS", help="folder of a corpus, or the name of a synthetic one")
    parser.add_argument("--context", type=int, default=3, help="neighbours on either side (default: 3)")
    parser.add_argument("--modalities", help="separated by commas (default: all of the corpus)")
    options = parser.parse_args(arguments)
    if options.context < 0:
        raise UserError(f"--context is {options.context}: give 0 or more")
    corpus = load_corpus(options.corpus)
    modalities = options.modalities.split(",") if options.modalities else corpus.card.modalities
    kind = "synthetic" if corpus.card.synthetic else "real"
    show(f"{corpus.card.name} ({kind}): logistic regression, scores on the validation split")
    show(f"{'modalities':<20} context       C  accuracy    W-F1  macro F1")
    groups = list(dict.fromkeys([*((m,) for m in modalities), tuple(modalities)]))
    for context in dict.fromkeys((0, options.context)):
        for group in groups:
            s = regress(corpus, group, context)
            row = f"{'+'.join(group):<20} {context:>7} {s.strength:>7g}"
            show(f"{row}  {s.accuracy:8.3f}  {s.weighted_f1:6.3f}  {s.macro_f1:8.3f}")


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
