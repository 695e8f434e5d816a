"""The HTML report of a run shows its numbers, is self-contained, and escapes all text."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_report import EMOTIONS, HISTORY, HOSTILE, guesses, labels, predicted_split, report_and_splits
from pages import Page
from tiny import tiny_corpus

from jmer.command import exit_status
from jmer.data.corpus import save_corpus
from jmer.data.frames import single_utterances
from jmer.errors import UserError
from jmer.evaluation import html_report
from jmer.evaluation.calibration import Calibration, calibration
from jmer.evaluation.forward import Predictions
from jmer.evaluation.html_charts import line_chart, reliability_chart
from jmer.evaluation.html_report import write_html_report
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.main import main
from jmer.selection import get_selection

REPORT, SPLITS = report_and_splits()


def written(folder, predicted=SPLITS, **changes):
    return write_html_report(folder, dataclasses.replace(REPORT, **changes), predicted).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_headline_scores_calibration_and_facts(page):
    test = REPORT.scores["test"]
    assert page.text.count("LFVD on meld") == 2
    accuracy = f"accuracy {100 * test.accuracy:.2f} %"
    assert f"Test weighted F1 {100 * test.weighted_f1:.2f} %, {accuracy} on {test.support} utterances" in page.text
    assert "epoch 2 of 3, chosen by validation weighted F1." in page.text
    for row in test.classes.values():
        assert f"{100 * row.precision:.2f} {100 * row.recall:.2f} {100 * row.f1:.2f} {row.support}" in page.text
    measured = calibration(np.concatenate(SPLITS["test"].predictions.probabilities), labels(SPLITS["test"]))
    assert f"expected calibration error (ECE) {100 * measured.expected_error:.1f} %" in page.text
    for fact in ("1,234,567", "0:03:12", "model.width = 300", "configs/lfvd_meld.py", "text 6, audio 4"):
        assert fact in page.text


def test_the_cells_of_the_confusion_matrix_link_to_their_utterances(page):
    gold, predicted = labels(SPLITS["test"]), guesses(SPLITS["test"])
    links = {a["href"]: a.get("aria-label") for a in page.named("a")}
    for i, j in np.ndindex(len(EMOTIONS), len(EMOTIONS)):
        count = ((gold == i) & (predicted == j)).sum()
        label = f"{count} utterances, gold {EMOTIONS[i]}, predicted {EMOTIONS[j]}"
        assert links.get(f"#split=test&filter={i}-{j}") == (label if count else None)
    assert any(link.startswith("#split=validation") for link in links)
    assert not any(link.startswith("#split=train") for link in links)


def test_the_viewer_has_the_predictions(page):
    data = page.data
    assert data["emotions"] == list(EMOTIONS) and list(data["splits"]) == ["test", "validation"]
    for split, found in SPLITS.items():
        assert [c["id"] for c in data["splits"][split]] == [c.id for c in found.conversations]
        for i, (shown, conversation) in enumerate(zip(data["splits"][split], found.conversations, strict=True)):
            for name in ("utterances", "speakers", "sentences"):
                assert shown[name] == getattr(conversation, name)
            probabilities = found.predictions.probabilities[i]
            assert shown["gold"] == conversation.labels.tolist()
            assert shown["predicted"] == probabilities.argmax(1).tolist()
            np.testing.assert_allclose(shown["probabilities"], probabilities, atol=5.1e-5)
            assert list(shown["weights"]) == list(REPORT.card.widths)
            for modality, values in found.predictions.weights.items():
                expected = np.where(conversation.available[modality], values[i], np.nan)
                np.testing.assert_allclose(np.array(shown["weights"][modality], float), expected, atol=5.1e-5)
            np.testing.assert_allclose(
                shown["attention"]["atmosphere"], found.predictions.attention["atmosphere"][i], atol=5.1e-5
            )


def test_single_utterances_are_joined_into_conversations(tmp_path):
    found = SPLITS["test"]

    def apart(values):
        return [row[None] for value in values for row in value]

    alone = PredictedSplit(
        single_utterances(found.conversations),
        Predictions(
            apart(found.predictions.probabilities),
            {m: apart(values) for m, values in found.predictions.weights.items()},
            {},
        ),
    )
    whole = PredictedSplit(found.conversations, dataclasses.replace(found.predictions, attention={}))
    assert Page(written(tmp_path, {"test": alone})).data == Page(written(tmp_path, {"test": whole})).data


def test_the_page_is_self_contained(source, page):
    for _, attributes in page.tags:
        assert "src" not in attributes
        for name in ("href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:,"))
    assert not re.search(r"https?:|//\w+\.|@import|url\(", source)
    policy = next(tag["content"] for tag in page.named("meta") if "http-equiv" in tag)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_texts_are_escaped(source, page):
    assert HOSTILE not in source
    assert {name for name, _ in page.tags} & {"img", "b", "i"} == set()
    assert len(page.named("script")) == 2
    assert page.data["splits"]["test"][0]["sentences"][0] == HOSTILE
    # In the command and in the provenance of the corpus.
    assert page.text.count(" ".join(HOSTILE.split())) == 2
    assert "joy & <b>love</b>" in page.text


def test_synthetic_corpora_and_test_oracles_have_their_warnings(tmp_path, page):
    assert "synthetic" not in page.text.lower() and "oracle" not in page.text.lower()
    card = dataclasses.replace(REPORT.card, synthetic=True)
    labelled = Page(written(tmp_path, card=card, selection=get_selection("test_oracle"))).text
    assert labelled.count("LFVD on meld (synthetic)") == 2
    assert "SYNTHETIC CORPUS. Its utterances were generated at random" in labelled
    assert "TEST ORACLE. The epoch was chosen on the test split itself ( test_oracle )." in labelled
    assert "test (test_oracle: optimistic)" in labelled


def test_sections_without_data_are_omitted(tmp_path):
    bare = written(tmp_path, {}, scores={}, history=())
    assert "No split has labels, so there are no scores." in bare
    for part in ('id="scores"', 'id="curves"', 'id="emotions"', 'id="viewer"', "<script"):
        assert part not in bare
    unseen = Page(written(tmp_path, {}))
    assert "expected calibration error" not in unseen.text and not unseen.named("script")
    assert not any(a["href"].startswith("#split") for a in unseen.named("a"))


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    before = written(tmp_path)

    def full_disk(path, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*report\.html \(No space left on device\)"):
        written(tmp_path, epoch=3)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == before


def test_a_corpus_as_large_as_meld_makes_a_page_of_few_megabytes(tmp_path):
    large = predicted_split("t", [13] * 1000, np.random.default_rng(0))
    write_html_report(tmp_path, REPORT, {"test": large})
    assert (tmp_path / html_report.HTML_REPORT_FILE).stat().st_size < 4e6


def test_curves_are_interrupted_where_a_value_is_missing():
    values = {"a": np.array([0.0, np.nan, 10.0, 5.0]), "b": np.full(4, np.nan)}
    chart = line_chart([1, 2, 3, 4], values, label="loss", chosen=3)
    a, b = chart.lines
    # Four epochs share 282 units; 0 to 10 go from the bottom, 190, to the top, 10.
    assert a.pieces == [[(75.2, 190.0)], [(216.2, 10.0), (286.8, 100.0)]]
    assert (a.marked, a.style, b.pieces, b.style) == (True, 0, [], 1)
    assert [(tick.text, tick.position) for tick in chart.x_ticks] == [
        ("1", 75.2),
        ("2", 145.8),
        ("3", 216.2),
        ("4", 286.8),
    ]
    assert [(tick.text, tick.position) for tick in chart.y_ticks][::5] == [("0", 190.0), ("10", 10.0)]
    assert chart.chosen == 216.2


def test_a_logarithmic_axis_has_powers_of_ten():
    chart = line_chart([1, 2], {"a": np.array([50.0, 0.5])}, label="loss", chosen=1, logarithmic=True)
    assert [tick.text for tick in chart.y_ticks] == ["0.1", "1", "10", "100"]
    expected = [190 - 180 * (np.log10(value) + 1) / 3 for value in (50, 0.5)]
    np.testing.assert_allclose([y for _, y in chart.lines[0].pieces[0]], expected, atol=0.06)


@pytest.mark.parametrize("values", [[3.0], [np.nan], [0.0]])
def test_one_epoch_makes_a_chart(values):
    chart = line_chart([7], {"a": np.array(values)}, label="loss", chosen=7)
    assert [(tick.text, tick.position) for tick in chart.x_ticks] == [("7", 181.0)]
    assert all(10 <= y <= 190 for line in chart.lines for piece in line.pieces for _, y in piece)
    assert np.isfinite([tick.position for tick in chart.y_ticks]).all()


def test_many_epochs_have_no_markers():
    chart = line_chart(list(range(1, 81)), {"a": np.linspace(2, 1, 80)}, label="loss", chosen=80)
    assert not chart.lines[0].marked and 3 <= len(chart.x_ticks) <= 8


def test_bars_have_the_heights_of_their_fractions():
    measured = Calibration(
        confidence=np.array([np.nan, 0.75]),
        accuracy=np.array([np.nan, 0.5]),
        count=np.array([0, 8]),
        expected_error=0.25,
        maximum_error=0.25,
    )
    chart = reliability_chart(measured)
    (bar,) = chart.bins
    assert (bar.x, bar.width) == (181.0, 141.0)
    assert bar.accuracy == (120.0, 110.0) and bar.gap == (65.0, 55.0) and bar.count == (246.0, 48.0)
    assert bar.text == "confidence 75 %: 8 utterances, 50 % correct"
    assert (chart.max_count.text, chart.max_count.position) == ("8", 246.0)


def test_the_history_is_drawn(page):
    curves = [tag["points"] for tag in page.named("polyline") if tag["points"] != "0,4 28,4"]
    # Two losses, one of them with a gap, and two scores.
    assert len(curves) == 5 and len(HISTORY) == 3
    circles = len(page.named("circle"))
    assert circles == 2 + 3 + 3 + 3


@pytest.mark.slow
def test_a_run_leaves_its_page_and_evaluation_makes_a_missing_one_again(tmp_path):
    save_corpus(tiny_corpus(), tmp_path / "corpus")
    folder, page = tmp_path / "run", tmp_path / "run" / "report.html"
    experiment = ["--config", str(Path(__file__).parent / "linear_experiment.py"), "--config.training.epochs=2"]
    assert exit_status(main, [*experiment, "--corpus", str(tmp_path / "corpus"), "--workdir", str(folder)]) == 0
    first = page.read_bytes()
    data = Page(first.decode()).data
    assert list(data["splits"]) == ["test", "validation"]
    for split, conversations in data["splits"].items():
        table = pd.read_csv(folder / "predictions" / f"{split}.csv", keep_default_na=False)
        shown = [(c["id"], name) for c in conversations for name in c["utterances"]]
        assert shown == list(zip(table["conversation"], table["utterance"], strict=True))
        guesses = [data["emotions"][guess] for c in conversations for guess in c["predicted"]]
        assert guesses == list(table["predicted"])
    page.unlink()
    assert exit_status(main, ["--workdir", str(folder), "--mode", "evaluate"]) == 0
    assert page.read_bytes() == first
