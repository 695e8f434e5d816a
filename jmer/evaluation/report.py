"""The report of a run: one Markdown file that reads well as plain text, and its pictures."""

import dataclasses
import datetime
import platform
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

import jmer
from jmer.batch import UNLABELLED
from jmer.data.corpus import SPLITS, Card, Corpus
from jmer.evaluation.markdown import escape_markdown, markdown_table, percent
from jmer.evaluation.metrics import Scores
from jmer.evaluation.plots import plot_confusion, plot_learning_curves
from jmer.evaluation.predictions import corpus_title
from jmer.files import atomically
from jmer.selection import SELECTIONS, get_selection

REPORT_FILE = "report.md"
CURVES_FILE = "learning_curves.png"
SYNTHETIC_BANNER = (
    "> **SYNTHETIC CORPUS.** Its utterances were drawn from a random process, not recorded.\n"
    "> No number in this report says anything about real conversations."
)
ORACLE_BANNER = (
    "> **TEST ORACLE.** The epoch was chosen by the test split itself (`test_oracle`). The scores are optimistic and\n"
    "> not comparable with scores of epochs that were chosen on validation data."
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "datasets")


@dataclasses.dataclass(frozen=True)
class SplitSize:
    """How much there is in a split; `labelled` counts the utterances that have a label."""

    conversations: int
    utterances: int
    labelled: int


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a report tells, in plain values.

    Attributes:
      model: name of the model, e.g. "LFVD".
      card: the corpus' card.
      sizes: split -> size.
      scores: split -> scores at the chosen epoch; a split without labels is left out.
      selection: "validation", "last" or "test_oracle".
      epoch: the epoch that was chosen, counted from 1.
      epochs: how many were trained.
      history: one mapping per epoch, as `plot_learning_curves` takes them; may be empty.
      config: the resolved configuration, nested.
      versions: what `collect_versions` returned where the run was made.
      command: the command line that made the run.
      parameters: number of trained parameters.
      seconds: training time.
    """

    model: str
    card: Card
    sizes: Mapping[str, SplitSize]
    scores: Mapping[str, Scores]
    selection: str
    epoch: int
    epochs: int
    history: Sequence[Mapping[str, float | None]]
    config: Mapping
    versions: Mapping[str, str]
    command: str
    parameters: int
    seconds: float


def split_sizes(corpus: Corpus) -> dict[str, SplitSize]:
    """Counts what is in each split of a corpus."""
    sizes = {}
    for split in corpus.splits:
        labels = [conversation.labels for conversation in corpus.conversations(split)]
        flat = np.concatenate(labels)
        sizes[split] = SplitSize(len(labels), len(flat), int(np.sum(flat != UNLABELLED)))
    return sizes


def collect_versions() -> dict[str, str]:
    """Returns the versions of what computes here, the platform and the devices (which starts JAX's backend)."""
    devices = jax.devices()
    return {
        "jmer": jmer.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "devices": f"{len(devices)} x {devices[0].device_kind} ({jax.default_backend()})",
    }


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes `report.md`, a `confusion_<split>.png` per scored split, and `learning_curves.png` if there is a history.

    Each file is written whole or not at all, the text last, so that it never links to a missing picture.

    Returns:
      The path of `report.md`.

    Raises:
      UserError: if the selection is unknown or a file cannot be written.
    """
    path = Path(folder) / REPORT_FILE
    title = f"{report.model} on {corpus_title(report.card)}"
    for split, scores in report.scores.items():
        heading = f"{title}, {split}\n{_choice(report)}"
        plot_confusion(scores.confusion, report.card.emotions, path.with_name(_picture(split)), heading)
    if report.history:
        heading = f"{title}\n{_choice(report)}"
        plot_learning_curves(report.history, path.with_name(CURVES_FILE), chosen=report.epoch, title=heading)
    with atomically(path) as temporary:
        temporary.write_text("\n\n".join(_sections(report)) + "\n", encoding="utf-8")
    return path


def _sections(report: Report) -> Iterator[str]:
    yield f"# {escape_markdown(report.model)} on {escape_markdown(corpus_title(report.card))}"
    yield from banners(synthetic=report.card.synthetic, selection=report.selection)
    yield headline(report)
    scored = [split for split in reversed(SPLITS) if split in report.scores]
    if scored:
        yield "## Scores"
        yield _score_table(report, scored)
    if report.history:
        yield f"![Loss terms and weighted F1 per epoch]({CURVES_FILE})"
    for split in scored:
        yield f"## {split_title(report, split).capitalize()}"
        yield from _split_sections(split, report.scores[split])
    yield "## Corpus"
    yield from _corpus_sections(report)
    yield "## Run"
    facts = {
        "trained parameters": f"{report.parameters:,}",
        "training time (h:mm:ss)": str(datetime.timedelta(seconds=round(report.seconds))),
        **report.versions,
    }
    yield "\n".join(f"- {name}: {escape_markdown(value)}" for name, value in facts.items())
    yield "Command:"
    yield textwrap.indent(report.command, "    ")
    yield "## Configuration"
    yield textwrap.indent("\n".join(config_lines(report.config)), "    ")


def banners(*, synthetic: bool, selection: str) -> list[str]:
    """Returns the warnings, as Markdown, that stand above scores.

    Args:
      synthetic: whether the scores are of a synthetic corpus.
      selection: name of the rule that chose the epoch.
    """
    applicable = {SYNTHETIC_BANNER: synthetic, ORACLE_BANNER: get_selection(selection).oracle}
    return [banner for banner, applies in applicable.items() if applies]


def _choice(report: Report) -> str:
    return f"epoch {report.epoch} of {report.epochs}, {get_selection(report.selection).description}"


def headline(report: Report) -> str:
    """Returns the sentence that a report begins with: the scores that count, and how the epoch was chosen."""
    split = next((split for split in reversed(SPLITS) if split in report.scores), None)
    if split is None:
        return f"No split has labels, so nothing was scored. Parameters: {_choice(report)}."
    scores = report.scores[split]
    figures = f"weighted F1 {percent(scores.weighted_f1)} %, accuracy {percent(scores.accuracy)} %"
    return f"**{split.capitalize()} {figures}** on {scores.support} utterances; {_choice(report)}."


def _score_table(report: Report, scored: Sequence[str]) -> str:
    rows = []
    for split in scored:
        s = report.scores[split]
        figures = (s.accuracy, s.weighted_f1, s.macro_f1, s.unweighted_accuracy)
        rows.append((split_title(report, split), str(s.support), *map(percent, figures)))
    return markdown_table(
        ("split", "utterances", "accuracy %", "weighted F1 %", "macro F1 %", "unweighted accuracy %"), rows
    )


def split_title(report: Report, split: str) -> str:
    """Returns the name of a split, with a note if it chose the epoch."""
    selection = get_selection(report.selection)
    if split != selection.split:
        return split
    return f"{split} ({selection.name}: optimistic)" if selection.oracle else f"{split} (chose the epoch)"


def _split_sections(split: str, scores: Scores) -> Iterator[str]:
    yield markdown_table(
        ("emotion", "precision %", "recall %", "F1 %", "support"),
        [
            (name, percent(row.precision), percent(row.recall), percent(row.f1), str(row.support))
            for name, row in scores.classes.items()
        ],
    )
    yield "Confusion matrix, gold in rows, predicted in columns:"
    names = tuple(scores.classes)
    yield markdown_table(
        ("gold", *names),
        [(name, *map(str, counts)) for name, counts in zip(names, scores.confusion, strict=True)],
    )
    yield f"![Confusion matrix on {split}]({_picture(split)})"


def _corpus_sections(report: Report) -> Iterator[str]:
    card = report.card
    kind = "synthetic" if card.synthetic else "real"
    yield f"{escape_markdown(card.name)}, {kind}. {escape_markdown(card.provenance)}"
    yield markdown_table(
        ("split", "conversations", "utterances", "labelled"),
        [(split, *map(str, dataclasses.astuple(size))) for split, size in report.sizes.items()],
    )
    yield markdown_table(("modality", "width"), [(modality, str(width)) for modality, width in card.widths.items()])
    yield f"Emotions: {escape_markdown(', '.join(card.emotions))}."


def config_lines(config: Mapping, prefix: str = "") -> Iterator[str]:
    """Yields `section.field = value` for every field of a nested configuration."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from config_lines(value, f"{prefix}{name}.")
        else:
            oracle = any(value == selection.name for selection in SELECTIONS.values() if selection.oracle)
            note = "  # optimistic, not comparable: chosen on the test split" if oracle else ""
            yield f"{prefix}{name} = {value!r}{note}"


def _picture(split: str) -> str:
    return f"confusion_{split}.png"
