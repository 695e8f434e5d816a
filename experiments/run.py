"""Makes the tables and figures of the papers on any corpus, over seeds, with comparisons.

    python -m experiments.run lfvd_table5                                        synthetic corpora, five seeds
    python -m experiments.run lfvd_table5,lfvd_table6 --corpus corpora/iemocap6 --seeds 5 --jobs 2
    python -m experiments.run lpgnet_gammas --corpus corpora/iemocap4 --split test --same-features
    python -m experiments.run all --together 5 --config.training.epochs=3

Tables share runs: each is a folder OUT/runs/<corpus>/<model>-<variant>/seed<n>, and is trained once, whatever tables it
stands in. A table's folder OUT/<table> has table.md, table.csv, table.tex and its figures. The same command again goes
on where it was stopped, and a command with more seeds, tables or corpora adds to it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import program, tables
from experiments.papers import layout, lfvd, lpgnet
from experiments.papers.figures import FIGURES
from experiments.papers.planning import Planner
from experiments.papers.study import Study
from experiments.runner import run, sound_corpus
from jmer.command import Parser
from jmer.data.corpus import any_labelled
from jmer.errors import UserError

PROGRAM = "experiments.run"
TABLES = {**lfvd.TABLES, **lpgnet.TABLES}
ALL = "all"


def main(arguments: Sequence[str]) -> int:
    """Runs and lays out the tables that the command line names; returns the exit status: 1 if any run failed.

    Raises:
      UserError: if anything on the command line, or in what it names, is wrong, or nothing could be run.
    """
    options, changes = program.parse(_parser(), arguments)
    names = [*TABLES] if options.tables == ALL else program.chosen("TABLE", options.tables, TABLES)
    runs = options.out / "runs"
    if options.resume and not runs.is_dir():
        raise UserError(f"--resume: {options.out} has no runs to go on with: leave out --resume, or name another --out")
    planner = Planner(variant=options.variant, changes=changes)
    planned = {
        name: {corpus: planner.plan(TABLES[name], corpus) for corpus in options.corpora or TABLES[name].corpora}
        for name in names
    }
    for corpus in dict.fromkeys(corpus for by_corpus in planned.values() for corpus in by_corpus):
        # Before anything is trained.
        if not any_labelled(sound_corpus(corpus).conversations(options.split)):
            raise UserError(f"split '{options.split}' of corpus {corpus} has no labels: choose another --split")
    if not planner.rows:
        obstacles = [line.obstacle for by_corpus in planned.values() for lines in by_corpus.values() for line in lines]
        raise UserError(f"nothing can be run: {next(filter(None, obstacles))}")
    at_once = {"jobs": options.jobs, "together": options.together}
    outcomes = run(planner.rows, range(options.seeds), runs, **at_once, say=program.say)
    by_row = dict(zip(planner.rows, outcomes, strict=True))
    for name, by_corpus in planned.items():
        studies = [
            Study(TABLES[name], name, corpus, lines, by_row, runs, options.split) for corpus, lines in by_corpus.items()
        ]
        program.say(f"\n{_write(options.out / name, studies, same_features=options.same_features)}")
    program.say(f"\nwrote {', '.join(str(options.out / name) for name in names)}: table.md, table.csv, LaTeX, figures")
    return int(any(outcome.failures for outcome in outcomes))


def _parser() -> Parser:
    parser = program.make_parser(PROGRAM, _description(), seeds=5, corpora=None)
    parser.add_argument("tables", metavar="TABLE,...", help=f"{ALL}, or among those listed above")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), help="default: runs/papers")
    splits = ("validation", "test")
    parser.add_argument(
        "--split", choices=splits, default=splits[0], help=f"whose scores to show (default: {splits[0]})"
    )
    parser.add_argument(
        "--same-features", action="store_true", help="say that the corpus has the features that the paper used"
    )
    parser.add_argument("--resume", action="store_true", help="go on only: a mistake unless OUT has runs already")
    return parser


def _write(folder: Path, studies: Sequence[Study], *, same_features: bool) -> str:
    """Writes a table's folder and returns its text."""
    folder.mkdir(parents=True, exist_ok=True)
    text, rows = [f"# {folder.name}: {studies[0].table.source}"], []
    for study in studies:
        compared = layout.compare_with_base(study)
        if study.finished:
            pictures = [picture for figure in study.table.figures for picture in FIGURES[figure](study, folder)]
            latex = folder / f"table_{study.corpus_name}.tex"
            layout.write_latex(latex, study, compared, same_features=same_features)
            text.append(layout.markdown(study, compared, pictures, same_features=same_features))
        else:
            text += layout.nothing(study)
        rows += layout.values(study, compared, same_features=same_features)
    tables.write(folder, "\n\n".join(text), rows)
    return "\n\n".join(text)


def _description() -> str:
    width = max(map(len, TABLES))
    listed = "\n".join(f"    {name:{width}}  {table.source}" for name, table in TABLES.items())
    return f"{__doc__}\ntables:\n{listed}"


if __name__ == "__main__":
    sys.exit(program.launch(PROGRAM, main, sys.argv[1:]))
