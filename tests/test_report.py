"""The Markdown report of a run: scores, provenance, warnings and figures."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from jmer.data import make_corpus
from jmer.data.corpus import Card, Conversation
from jmer.errors import UserError
from jmer.evaluation.metrics import scores_from_confusion
from jmer.evaluation.plots import plot_confusion, plot_learning_curves
from jmer.evaluation.report import Report, SplitSize, collect_versions, split_sizes, write_report
from jmer.selection import get_selection

EMOTIONS = ("neutral", "very|angry", "sad_low")
CARD = Card("meld", {"text": 1024, "audio": 300}, EMOTIONS, "Features of\nJane *Doe*.", False)
HISTORY = [
    {"epoch": 1, "train/loss": 2.0, "train/loss_task": 1.9, "train/weighted_f1": 0.2, "validation/weighted_f1": 0.3},
    {"epoch": 2, "train/loss": None, "train/loss_task": 0.9, "train/weighted_f1": 0.4, "validation/weighted_f1": 0.5},
]
CONFUSION = np.array([[8, 1, 1], [2, 3, 0], [0, 0, 0]])
REPORT = Report(
    model="LFVD",
    card=CARD,
    sizes={"train": SplitSize(30, 400, 390), "validation": SplitSize(3, 20, 15), "test": SplitSize(4, 25, 15)},
    scores={split: scores_from_confusion(CONFUSION, EMOTIONS) for split in ("train", "validation", "test")},
    selection=get_selection("validation"),
    epoch=7,
    epochs=80,
    history=HISTORY,
    config={"model": {"width": 300, "gates": (1, 2), "extra": {}}, "selection": "validation", "path": None},
    versions={"jmer": "0.1.0", "platform": "Linux-x86_64"},
    command="python -m jmer.main --config configs/lfvd_meld.py",
    parameters=1234567,
    seconds=192.4,
)
ONLY_TEST = {"test": REPORT.scores["test"]}


def written(folder, **changes):
    return write_report(folder, dataclasses.replace(REPORT, **changes)).read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `REPORT` written to it."""
    return write_report(tmp_path_factory.mktemp("report"), REPORT).parent


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.md").read_text()


@pytest.fixture
def figures(monkeypatch):
    """The figures that a test saves."""
    seen, save = [], Figure.savefig

    def record(figure, *args, **options):
        seen.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    return seen


def title(figure):
    return " ".join((figure.get_suptitle() or figure.axes[0].get_title()).split())


def tables(text):
    """The Markdown tables as lists of rows of cells; in each, all rows must be equally long in characters and cells."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            lines = block.splitlines()
            assert len(set(map(len, lines))) == 1
            rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
            assert len(set(map(len, rows))) == 1
            found.append([rows[0], *rows[2:]])
    return found


def test_headline_scores_and_confusion(text):
    assert text.startswith("# LFVD on meld\n")
    # By hand: 11 of 15 right; F1 16/20, 6/9 and 0, supports 10, 5 and 0; recalls 0.8 and 0.6.
    headline = "**Test weighted F1 75.56 %, accuracy 73.33 %** on 15 utterances; epoch 7 of 80, chosen by validation"
    assert f"{headline} weighted F1.\n" in text
    all_tables = tables(text)
    assert all_tables[0] == [
        ["split", "utterances", "accuracy %", "weighted F1 %", "macro F1 %", "unweighted accuracy %"],
        ["test", "15", "73.33", "75.56", "48.89", "70.00"],
        ["validation (used for selection)", "15", "73.33", "75.56", "48.89", "70.00"],
        ["train", "15", "73.33", "75.56", "48.89", "70.00"],
    ]
    assert all_tables[1][1:] == [
        ["neutral", "80.00", "80.00", "80.00", "10"],
        [r"very\|angry", "75.00", "60.00", "66.67", "5"],
        ["sad_low", "0.00", "0.00", "0.00", "0"],
    ]
    assert all_tables[2] == [
        ["gold", "neutral", r"very\|angry", "sad_low"],
        ["neutral", "8", "1", "1"],
        [r"very\|angry", "2", "3", "0"],
        ["sad_low", "0", "0", "0"],
    ]


def test_corpus_configuration_versions_and_command(text):
    *_, sizes, widths = tables(text)
    assert sizes[1:] == [["train", "30", "400", "390"], ["validation", "3", "20", "15"], ["test", "4", "25", "15"]]
    assert widths[1:] == [["text", "1024"], ["audio", "300"]]
    for line in (
        r"meld, real. Features of Jane \*Doe\*.",
        r"Emotions: neutral, very\|angry, sad_low.",
        "- trainable parameters: 1,234,567",
        "- training time (h:mm:ss): 0:03:12",
        "- platform: Linux-x86_64",
        "    python -m jmer.main --config configs/lfvd_meld.py",
        "    model.width = 300",
        "    model.gates = (1, 2)",
        "    model.extra = {}",
        "    selection = 'validation'",
        "    path = None",
    ):
        assert line in text.splitlines()


def test_every_linked_figure_exists_and_no_other_file_is_left(folder, text):
    links = re.findall(r"!\[.*\]\((.*)\)", text)
    pictures = ["confusion_test.png", "confusion_train.png", "confusion_validation.png", "learning_curves.png"]
    assert sorted(links) == pictures
    assert sorted(path.name for path in folder.iterdir()) == [*pictures, "report.md"]
    for picture in pictures:
        assert imread(folder / picture).std() > 0.01


def test_without_history_labels_or_test_split(tmp_path):
    short = written(tmp_path / "a", history=(), scores={"validation": REPORT.scores["validation"]})
    assert "learning_curves" not in short and "**Validation weighted F1 75.56 %" in short
    unscored = written(tmp_path / "b", history=(), scores={})
    assert "No split has labels, so there are no scores." in unscored and "## Scores" not in unscored
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["report.md"]


def test_text_and_figures_of_a_synthetic_corpus_are_marked_synthetic(tmp_path, text, figures):
    synthetic = written(tmp_path, card=dataclasses.replace(CARD, synthetic=True), scores=ONLY_TEST)
    assert synthetic.startswith("# LFVD on meld (synthetic)\n\n> **SYNTHETIC CORPUS.**")
    assert "meld, synthetic." in synthetic
    assert len(figures) == 2 and all("meld (synthetic)" in title(figure) for figure in figures)
    assert "synthetic" not in text.lower()


def test_test_oracle_is_labelled_wherever_it_appears(tmp_path, text, figures):
    config = {"train": {"selection": "test_oracle"}}
    oracle = written(tmp_path, selection=get_selection("test_oracle"), config=config, scores=ONLY_TEST)
    assert "> **TEST ORACLE.**" in oracle
    assert all("optimistic" in line for line in oracle.splitlines() if "test_oracle" in line)
    assert tables(oracle)[0][1][0] == "test (test_oracle: optimistic)"
    assert "## Test (test_oracle: optimistic)" in oracle
    assert len(figures) == 2
    assert all("test_oracle: optimistic, not comparable" in title(figure) for figure in figures)
    assert "oracle" not in text.lower()


def test_the_last_epoch_is_described_as_such(tmp_path):
    assert "epoch 80 of 80, the last epoch, not chosen by a score." in written(
        tmp_path, selection=get_selection("last"), epoch=80, scores=ONLY_TEST, history=()
    )


def test_refused_and_failed_reports_leave_the_old_one(tmp_path, monkeypatch):
    before = written(tmp_path, scores=ONLY_TEST, history=())

    def full_disk(self, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*confusion_train\.png \(No space left on device\)"):
        written(tmp_path, epoch=8)
    assert (tmp_path / "report.md").read_text() == before


def test_versions_have_packages_platform_and_devices():
    versions = collect_versions()
    assert list(versions)[:3] == ["jmer", "python", "jax"]
    assert {"flax", "optax", "orbax-checkpoint", "numpy", "datasets", "platform"} < set(versions)
    assert versions["numpy"] == np.__version__ and versions["devices"] == "8 x cpu (cpu)"


def test_split_sizes_count_conversations_utterances_and_labels():
    def conversation(name, labels):
        n = len(labels)
        return Conversation(
            id=name,
            utterances=list(map(str, range(n))),
            speakers=["A"] * n,
            labels=np.array(labels, np.int32),
            features={m: np.zeros((n, d), np.float32) for m, d in CARD.widths.items()},
            available={m: np.ones(n, bool) for m in CARD.widths},
            sentences=[""] * n,
        )

    corpus = make_corpus(
        {"train": [conversation("a", [0, -1]), conversation("b", [2])], "test": [conversation("c", [-1])]}, CARD
    )
    assert split_sizes(corpus) == {"train": SplitSize(2, 3, 2), "test": SplitSize(1, 1, 0)}


@pytest.mark.parametrize("count", [2, 10])
def test_confusion_shows_counts_and_row_shares(tmp_path, count, figures):
    confusion = np.arange(count * count).reshape(count, count)
    confusion[-1] = 0
    plot_confusion(confusion, [f"emotion {i}" for i in range(count)], tmp_path / "c.png", "title")
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert len(texts) == count * count
    assert texts[1] == f"1\n{100 / confusion[0].sum():.1f}%" and texts[-1] == "0\n–"
    assert imread(tmp_path / "c.png").shape[0] > 300


def test_curves_mark_the_chosen_epoch_and_scale_with_the_terms(tmp_path, figures):
    for small in (0.5, 1e-4, -0.1):
        history = [row | {"train/loss_self": small} for row in HISTORY]
        plot_learning_curves(
            history, tmp_path / "l.png", chosen=2, title="title", selection=get_selection("validation")
        )
    assert [figure.axes[0].get_yscale() for figure in figures] == ["linear", "log", "linear"]
    loss, score = figures[0].axes
    assert [line.get_label() for line in loss.lines] == ["train loss", "task", "self", "chosen epoch (2)"]
    assert [line.get_label() for line in score.lines] == ["train", "validation", "chosen epoch (2)"]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [2.0, np.nan])
    np.testing.assert_allclose(score.lines[1].get_ydata(), [30, 50])
    assert list(loss.lines[-1].get_xdata()) == [2, 2]


ODD_NAMES = (r"$\frac{a}$", "$x$", "a$b", r"\$", "👍", "עצוב", "x" * 1000)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_names_in_figures_are_no_mathematics_and_need_no_font(tmp_path, suffix, figures):
    title = " ".join(ODD_NAMES[:3] * 8)
    plot_confusion(np.eye(len(ODD_NAMES), dtype=int), ODD_NAMES, tmp_path / f"c.{suffix}", title)
    (axes, *_) = figures[-1].axes
    assert " ".join(axes.get_title().split()) == title and "\n" in axes.get_title()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[:6] == list(ODD_NAMES[:6]) and len(labels[6]) == 40
    history = [{"epoch": e, "train/loss": 10.0**-e, "train/loss_$y$": 1.0} for e in (1, 2, 3)]
    selection = get_selection("validation")
    plot_learning_curves(history, tmp_path / f"l.{suffix}", chosen=1, title=r"$\frac{a}$", selection=selection)
    ticks = [label.get_text() for label in figures[-1].axes[0].get_yticklabels()]
    assert {"0.001", "0.01", "0.1", "1"} <= set(ticks)
    assert all((tmp_path / f"{name}.{suffix}").stat().st_size > 5_000 for name in "cl")
