"""The report of analyses: one Markdown file, and per analysis a table and two pictures beside it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from experiments.analysis.analysis import Analysis
from experiments.analysis.catalogue import ANALYSES
from experiments.analysis.subjects import Subject
from experiments.plots import picture_paths
from experiments.tables import write_text
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.report import banners
from jmer.files import atomically

REPORT_FILE = "analysis.md"


def analyse(
    subjects: Sequence[Subject], split: str, names: Sequence[str], out: Path, *, log: Callable[[str], None]
) -> str:
    """Makes analyses of runs, and writes `analysis.md` and for each analysis `NAME.csv`, `NAME.png` and `NAME.svg`.

    Args:
      subjects: of one configuration.
      split: of their corpus.
      names: in `ANALYSES`.
      out: folder, created if missing.
      log: called with each line of progress.

    Returns:
      The text of `analysis.md`.

    Raises:
      UserError: if the corpus has no such split, the split has no labels, or a file cannot be written.
    """
    parts = [*_head(subjects, split)]
    for name in names:
        parts += _section(name, ANALYSES[name], subjects, split, out)
        log(f"{name}: done")
    text = "\n\n".join(parts)
    write_text(out / REPORT_FILE, text)
    return text


def _head(subjects: Sequence[Subject], split: str) -> Iterator[str]:
    first, card = subjects[0].run, subjects[0].corpus.card
    selection = first.selection
    yield f"# Analyses of {_title(subjects)}"
    yield from banners(synthetic=card.synthetic or first.card.synthetic, selection=selection)
    epochs = ", ".join(str(subject.run.epoch) for subject in subjects)
    trained_on = "" if card == first.card else f", trained on {corpus_title(first.card)}"
    optimistic = ", so that scores on this split are optimistic" if selection.split == split else ""
    yield (
        f"Split: {split.upper()}, n = {len(subjects)} ({_seeds(subjects)}){trained_on}. Epoch {epochs}: "
        f"{selection.description}{optimistic}. Numbers are means ± sample standard deviation over seeds, none for a "
        "single seed."
    )


def _section(name: str, analysis: Analysis, subjects: Sequence[Subject], split: str, out: Path) -> Iterator[str]:
    yield f"## {analysis.title}"
    if reason := analysis.applies(subjects[0]):
        yield f"Left out: {reason}."
        return
    frame = analysis.measure(subjects, split)
    with atomically(out / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False)
    selection = subjects[0].run.selection
    title = f"{analysis.title}: {_title(subjects)}, {split}, {_seeds(subjects)}\nepoch {selection.description}"
    for path in picture_paths(out / name):
        analysis.draw(frame, path, title)
    yield from analysis.describe(frame)
    yield f"![{analysis.title}]({name}.png)"
    yield f"Also as [SVG]({name}.svg); the numbers as [CSV]({name}.csv)."


def _title(subjects: Sequence[Subject]) -> str:
    return f"{subjects[0].run.config.model.name.upper()} on {corpus_title(subjects[0].corpus.card)}"


def _seeds(subjects: Sequence[Subject]) -> str:
    return f"seed{'s' if len(subjects) > 1 else ''} {', '.join(str(subject.seed) for subject in subjects)}"
