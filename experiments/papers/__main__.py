"""Makes the tables and figures of the papers on any corpus, over seeds, with paired tests.

    python -m experiments.papers lfvd_table5                                        synthetic corpora, five seeds
    python -m experiments.papers lfvd_table5,lfvd_table6 --corpus corpora/iemocap6 --seeds 5 --jobs 2
    python -m experiments.papers lpgnet_gammas --corpus corpora/iemocap4 --split test --same-features
    python -m experiments.papers all --vectorize 5 --config.training.epochs=3

Tables share runs: each run is a folder OUT/runs/<corpus>/<model>-<variant>/seed<n>, trained once for all tables that
have it. A table's folder OUT/<table> has table.md, table.csv, LaTeX and its figures. The same command again resumes,
and a command with more seeds, tables or corpora adds to what is there.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import tables
from experiments.grid import cli
from experiments.grid.corpora import training_corpus
from experiments.grid.executor import run_grid
from experiments.papers import lfvd, lpgnet, report
from experiments.papers.figures import FIGURES
from experiments.papers.planning import Planner
from experiments.papers.study import Study
from jmer.command import Parser
from jmer.data.corpus import any_labelled
from jmer.errors import UserError

PROGRAM = "experiments.papers"
TABLES = {**lfvd.TABLES, **lpgnet.TABLES}
ALL = "all"


def main(arguments: Sequence[str]) -> int:
    """Trains the runs of the tables on the command line and writes the tables; returns 1 if any run failed, else 0.

    Raises:
      UserError: if a flag, or anything that a flag names, is invalid, or no row can be run.
    """
    options, changes = cli.parse(_parser(), arguments)
    names = [*TABLES] if options.tables == ALL else cli.choices("TABLE", options.tables, TABLES)
    runs = options.out / "runs"
    if options.resume and not runs.is_dir():
        raise UserError(f"--resume: {options.out} has no runs to resume: omit --resume, or choose another --out")
    planner = Planner(variant=options.variant, changes=changes)
    planned = {
        name: {corpus: planner.plan(TABLES[name], corpus) for corpus in options.corpora or TABLES[name].corpora}
        for name in names
    }
    for corpus in dict.fromkeys(corpus for by_corpus in planned.values() for corpus in by_corpus):
        # Before anything is trained.
        if not any_labelled(training_corpus(corpus).conversations(options.split)):
            raise UserError(f"split '{options.split}' of corpus {corpus} has no labels: choose another --split")
    if not planner.rows:
        obstacles = [line.obstacle for by_corpus in planned.values() for lines in by_corpus.values() for line in lines]
        raise UserError(f"no row can be run: {next(filter(None, obstacles))}")
    parallel = {"jobs": options.jobs, "vectorize": options.vectorize}
    outcomes = run_grid(planner.rows, range(options.seeds), runs, **parallel, log=cli.log)
    by_row = dict(zip(planner.rows, outcomes, strict=True))
    for name, by_corpus in planned.items():
        studies = [
            Study(TABLES[name], name, corpus, lines, by_row, runs, options.split) for corpus, lines in by_corpus.items()
        ]
        cli.log(f"\n{_write(options.out / name, studies, same_features=options.same_features)}")
    cli.log(f"\nwrote {', '.join(str(options.out / name) for name in names)}: table.md, table.csv, LaTeX, figures")
    return int(any(outcome.failures for outcome in outcomes))


def _parser() -> Parser:
    parser = cli.make_parser(PROGRAM, _description(), seeds=5, corpora=None)
    parser.add_argument("tables", metavar="TABLE,...", help=f"{ALL}, or some of those listed above")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), help="default: runs/papers")
    splits = ("validation", "test")
    parser.add_argument(
        "--split", choices=splits, default=splits[0], help=f"split whose scores are shown (default: {splits[0]})"
    )
    parser.add_argument(
        "--same-features", action="store_true", help="declare that the corpus has the features of the paper"
    )
    parser.add_argument("--resume", action="store_true", help="only resume: fail if OUT has no runs")
    return parser


def _write(folder: Path, studies: Sequence[Study], *, same_features: bool) -> str:
    """Writes a table's folder and returns its text."""
    folder.mkdir(parents=True, exist_ok=True)
    text, rows = [f"# {folder.name}: {studies[0].table.source}"], []
    for study in studies:
        compared = report.compare_with_base(study)
        if study.finished:
            pictures = [picture for figure in study.table.figures for picture in FIGURES[figure](study, folder)]
            latex = report.latex(study, compared, same_features=same_features)
            tables.write_text(folder / f"table_{study.corpus_name}.tex", latex)
            text.append(report.markdown(study, compared, pictures, same_features=same_features))
        else:
            text += report.no_results(study)
        rows += report.values(study, compared, same_features=same_features)
    tables.write(folder, "\n\n".join(text), rows)
    return "\n\n".join(text)


def _description() -> str:
    width = max(map(len, TABLES))
    listed = "\n".join(f"    {name:{width}}  {table.source}" for name, table in TABLES.items())
    return f"{__doc__}\ntables:\n{listed}"


if __name__ == "__main__":
    sys.exit(cli.launch(PROGRAM, main, sys.argv[1:]))
