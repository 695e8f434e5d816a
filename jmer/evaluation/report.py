"""Report of a run in Markdown, with its figures."""

import dataclasses
import datetime
import platform
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jmer
from jmer.batch import UNLABELLED
from jmer.data.corpus import SPLITS, Card, Corpus
from jmer.data.findings import WARNING, Finding
from jmer.evaluation.markdown import escape_markdown, markdown_table, percent
from jmer.evaluation.metrics import Scores
from jmer.evaluation.plots import History, plot_confusion, plot_learning_curves
from jmer.evaluation.predictions import corpus_title
from jmer.files import atomically
from jmer.selection import (
    MICRO_F1,
    SELECTIONS,
    Selection,
    get_selection,
    is_of_attribute,
    metric_title,
    metric_value,
    summarized_metrics,
)

REPORT_FILE = "report.md"
CURVES_FILE = "learning_curves.png"
SYNTHETIC_BANNER = (
    "> **SYNTHETIC CORPUS.** Its utterances were generated at random, not recorded.\n"
    "> The numbers in this report do not indicate performance on real conversations."
)
ORACLE_BANNER = (
    "> **TEST ORACLE.** The epoch was chosen on the test split itself (`test_oracle`). The scores are optimistic and\n"
    "> not comparable with those of epochs that were chosen on validation data."
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "datasets")


@dataclasses.dataclass(frozen=True)
class SplitSize:
    """Size of a split; `labelled` is the number of utterances with a label."""

    conversations: int
    utterances: int
    labelled: int


@dataclasses.dataclass(frozen=True)
class Report:
    """Contents of a report.

    Attributes:
      model: name of the model, as the report shows it.
      card: card of the corpus.
      sizes: split -> its size.
      unprepared: lines on the features that training has not prepared the model for, see `jmer.data.outliers`.
      findings: of the probe of the corpus, see `jmer.data.probing`.
      scores: split -> scores at the chosen epoch; without the splits that have no labels.
      selection: the rule that chose the epoch.
      epoch: the chosen epoch, counted from 1.
      epochs: number of epochs trained.
      stopped: why training ended before its last epoch; empty = it did not.
      remarks: name -> value of more facts: the weights that the run was started from, what was changed on resume.
      history: losses and scores per epoch, see `jmer.evaluation.plots.plot_learning_curves`; may be empty.
      config: resolved configuration, nested.
      versions: name -> version of each package, and the platform and devices of the run, see `collect_versions`.
      command: command line of the run.
      parameters: number of trainable parameters.
      seconds: training time.
    """

    model: str
    card: Card
    sizes: Mapping[str, SplitSize]
    scores: Mapping[str, Scores]
    selection: Selection
    epoch: int
    epochs: int
    history: History
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    parameters: int
    seconds: float
    unprepared: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    stopped: str = ""
    remarks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The model and the corpus."""
        return f"{self.model} on {corpus_title(self.card)}"

    @property
    def scored_splits(self) -> list[str]:
        """The splits with scores, the test split first."""
        return [split for split in reversed(SPLITS) if split in self.scores]

    @property
    def metrics(self) -> dict[str, str]:
        """Name -> title of the metrics over all emotions."""
        found = summarized_metrics(self.scores[self.scored_splits[0]]) if self.scores else {}
        return {name: title for name, title in found.items() if not is_of_attribute(name)}

    @property
    def facts(self) -> dict[str, str]:
        """Name -> value of the facts about the run: parameters, work, training time, remarks, versions."""
        seen = int(self.history[-1].get("utterances_seen") or 0) if self.history else 0
        return {
            "trainable parameters": f"{self.parameters:,}",
            **({"utterances seen in training": f"{seen:,} in {len(self.history)} epochs"} if seen else {}),
            "training time (h:mm:ss)": str(datetime.timedelta(seconds=round(self.seconds))),
            **self.remarks,
            **self.versions,
        }

    @property
    def choice(self) -> str:
        """The chosen epoch, and how it was chosen."""
        return f"epoch {self.epoch} of {self.epochs}, {self.selection.description}"


def split_sizes(corpus: Corpus) -> dict[str, SplitSize]:
    """Returns the size of each split of a corpus."""
    sizes = {}
    for split in corpus.splits:
        labels = [conversation.labels for conversation in corpus.conversations(split)]
        flat = np.concatenate(labels)
        sizes[split] = SplitSize(len(labels), len(flat), int(np.sum(flat != UNLABELLED)))
    return sizes


def collect_versions() -> dict[str, str]:
    """Returns the versions of the packages used, the platform and the devices; initializes JAX's backend."""
    devices = jax.devices()
    return {
        "jmer": jmer.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "devices": f"{len(devices)} x {devices[0].device_kind} ({jax.default_backend()})",
    }


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes `report.md` and its figures: `confusion_<split>.png` of each scored split and `learning_curves.png`.

    Without a history there are no learning curves. Each file is written atomically, the text last, so that it never
    links to a missing figure.

    Returns:
      The path of `report.md`.

    Raises:
      UserError: if a file cannot be written.
    """
    path = Path(folder) / REPORT_FILE
    for split, scores in report.scores.items():
        heading = f"{report.title}, {split}\n{report.choice}"
        plot_confusion(scores.confusion, report.card.emotions, path.with_name(_figure_name(split)), heading)
    if report.history:
        heading = f"{report.title}\n{report.choice}"
        plot_learning_curves(
            report.history, path.with_name(CURVES_FILE), chosen=report.epoch, title=heading, selection=report.selection
        )
    with atomically(path) as temporary:
        temporary.write_text("\n\n".join(_sections(report)) + "\n", encoding="utf-8")
    return path


def _sections(report: Report) -> Iterator[str]:
    yield f"# {escape_markdown(report.title)}"
    yield from banners(synthetic=report.card.synthetic, selection=report.selection)
    yield headline(report)
    if warning := data_warning(report):
        yield warning
    if report.scores:
        yield "## Scores"
        yield _score_table(report)
    if report.history:
        yield f"![Loss terms and {report.selection.title} per epoch]({CURVES_FILE})"
    for split in report.scored_splits:
        yield f"## {split_title(report, split).capitalize()}"
        yield from _split_sections(split, report.scores[split])
    yield "## Corpus"
    yield from _corpus_sections(report)
    if report.findings:
        yield "## Leaks and shifts between splits"
        yield markdown_table(
            ("verdict", "check", "of", "found", "meaning"),
            [
                tuple(map(escape_markdown, (f.verdict, f.check, f.subject, f.measured, f.meaning)))
                for f in report.findings
            ],
        )
    yield "## Run"
    yield "\n".join(f"- {name}: {escape_markdown(value)}" for name, value in report.facts.items())
    yield "Command:"
    yield textwrap.indent(report.command, "    ")
    yield "## Configuration"
    yield textwrap.indent("\n".join(config_lines(report.config)), "    ")


def banners(*, synthetic: bool, selection: Selection) -> list[str]:
    """Returns the warnings that a report shows above its scores, as Markdown.

    Args:
      synthetic: whether the corpus is synthetic.
      selection: the rule that chose the epoch.
    """
    applicable = {SYNTHETIC_BANNER: synthetic, ORACLE_BANNER: selection.oracle}
    return [banner for banner, applies in applicable.items() if applies]


def headline(report: Report) -> str:
    """Returns the first sentence of a report: the main scores and how the epoch was chosen.

    The scores are those of the test split, or of the validation or training split if no other has labels.
    """
    if not report.scores:
        return f"No split has labels, so there are no scores. Parameters of {report.choice}."
    split = report.scored_splits[0]
    scores = report.scores[split]
    figures = main_scores(scores, report.selection)
    stopped = f" Training {report.stopped}." if report.stopped else ""
    return f"**{split.capitalize()} {figures}** on {scores.support} utterances; {report.choice}.{stopped}"


def main_scores(scores: Scores, selection: Selection) -> str:
    """Returns the scores that a sentence names: weighted F1, accuracy, micro F1 if there is one, and what selects."""
    names = ["weighted_f1", "accuracy", *([MICRO_F1] if scores.majority_emotion else []), selection.metric]
    return ", ".join(
        f"{metric_title(name, scores.majority_emotion)} {percent(metric_value(scores, name))} %"
        for name in dict.fromkeys(names)
    )


def data_warning(report: Report) -> str:
    """Returns a sentence on the findings that would mislead who reads the scores; empty if there are none."""
    warned = [f"{f.check}, {f.subject}" for f in report.findings if f.verdict == WARNING]
    if not warned:
        return ""
    return f"**The corpus may mislead** ({'; '.join(warned)}): see the leaks and shifts between its splits."


def _score_table(report: Report) -> str:
    columns = report.metrics
    rows = []
    for split in report.scored_splits:
        scores = report.scores[split]
        fractions = [metric_value(scores, name) for name in columns]
        rows.append((split_title(report, split), str(scores.support), *map(percent, fractions)))
    return markdown_table(("split", "utterances", *(f"{title} %" for title in columns.values())), rows)


def split_title(report: Report, split: str) -> str:
    """Returns the name of a split, with a note if its score chose the epoch."""
    selection = report.selection
    if split != selection.split:
        return split
    return f"{split} ({selection.name}: optimistic)" if selection.oracle else f"{split} (used for selection)"


def _split_sections(split: str, scores: Scores) -> Iterator[str]:
    yield markdown_table(
        ("emotion", "precision %", "recall %", "F1 %", "support"),
        [
            (name, percent(row.precision), percent(row.recall), percent(row.f1), str(row.support))
            for name, row in scores.classes.items()
        ],
    )
    yield "Confusion matrix, gold emotions in rows, predicted ones in columns:"
    names = tuple(scores.classes)
    yield markdown_table(
        ("gold", *names),
        [(name, *map(str, counts)) for name, counts in zip(names, scores.confusion, strict=True)],
    )
    yield f"![Confusion matrix on {split}]({_figure_name(split)})"
    if scores.attributes:
        yield "Attributes:"
        yield markdown_table(*attribute_table(scores))


def attribute_table(scores: Scores) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns the head and the rows of the table with the scores of attributes."""
    head = ("attribute", "CCC", "Pearson", "MAE", "Kendall's tau_b", "pairwise accuracy %", "support")
    rows = []
    for name, found in scores.attributes.items():
        numbers = (found.concordance, found.pearson, found.mean_absolute_error, found.kendall_tau)
        pairs = "-" if found.pairwise_accuracy is None else percent(found.pairwise_accuracy)
        margin = f" (margin {found.margin:g})" if found.margin else ""
        rows.append((name, *(f"{number:.3f}" for number in numbers), pairs + margin, str(found.support)))
    return head, rows


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
    if report.unprepared:
        yield "Features that training has not prepared the model for:"
        yield "\n".join(f"- {escape_markdown(line)}" for line in report.unprepared)


def config_lines(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields a line `section.field = value` for each field of a nested configuration."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from config_lines(value, f"{prefix}{name}.")
        else:
            oracle = isinstance(value, str) and value in SELECTIONS and get_selection(value).oracle
            note = "  # optimistic, not comparable: chosen on the test split" if oracle else ""
            yield f"{prefix}{name} = {value!r}{note}"


def _figure_name(split: str) -> str:
    return f"confusion_{split}.png"
