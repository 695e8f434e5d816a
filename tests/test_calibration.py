"""Calibration equals its definition written as a loop, and the reliability diagram shows its values."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from jmer.errors import UserError
from jmer.evaluation.calibration import calibration
from jmer.evaluation.plots import plot_reliability


def predictions(count=400, emotions=4, seed=0):
    """Draws overconfident probabilities, and labels of which some are missing."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(emotions, 0.4), count)
    labels = np.where(rng.random(count) < 0.6, probabilities.argmax(1), rng.integers(0, emotions, count))
    return probabilities, np.where(rng.random(count) < 0.1, -1, labels)


def by_definition(probabilities, labels, bins):
    """Returns means, counts and errors from a loop over utterances."""
    members = [[] for _ in range(bins)]
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        if label >= 0:
            top = max(row)
            number = next(m for m in range(bins) if m / bins < top <= (m + 1) / bins)
            members[number].append((top, row.index(top) == label))
    total = sum(map(len, members))
    means = [tuple(sum(c) / len(m) for c in zip(*m, strict=True)) if m else (np.nan, np.nan) for m in members]
    gaps = [abs(accuracy - confidence) for confidence, accuracy in means]
    expected = sum(len(m) / total * gap for m, gap in zip(members, gaps, strict=True) if m)
    return means, list(map(len, members)), expected, np.nanmax(gaps)


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
@pytest.mark.parametrize("emotions", [2, 7])
def test_equals_its_definition(bins, emotions):
    probabilities, labels = predictions(emotions=emotions)
    means, counts, expected, largest = by_definition(probabilities, labels, bins)
    found = calibration(probabilities, labels, bins=bins)
    np.testing.assert_allclose(np.stack([found.confidence, found.accuracy], 1), means, rtol=1e-12)
    assert found.count.tolist() == counts and sum(counts) == (labels >= 0).sum() < len(labels)
    np.testing.assert_allclose([found.expected_error, found.maximum_error], [expected, largest], rtol=1e-12)
    assert found.confidence.dtype == found.accuracy.dtype == np.float64


def test_by_hand():
    # Two bins: (0, 0.5] has 0.5 right; (0.5, 1] has 0.9 wrong and 1 right; the last row has no label.
    probabilities = np.array([[0.5, 0.5], [0.1, 0.9], [1.0, 0.0], [0.2, 0.8]], np.float32)
    found = calibration(probabilities, np.array([0, 0, 0, -1]), bins=2)
    np.testing.assert_allclose(found.confidence, [0.5, 0.95], rtol=1e-7)
    assert (found.accuracy.tolist(), found.count.tolist()) == ([1.0, 0.5], [1, 2])
    np.testing.assert_allclose(
        [found.expected_error, found.maximum_error], [1 / 3 * 0.5 + 2 / 3 * 0.45, 0.5], rtol=1e-6
    )


def test_a_calibrated_model_has_almost_no_error():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(3), 20000)
    labels = (probabilities.cumsum(1) < rng.random((20000, 1))).sum(1)
    found = calibration(probabilities, labels)
    assert found.expected_error < 0.02
    assert np.isnan(found.accuracy[:4]).all() and found.count[:4].sum() == 0


def test_wrong_arguments_are_refused():
    probabilities, labels = predictions(5)
    with pytest.raises(
        UserError, match=r"probabilities \(5, 4\) and labels \(4,\) do not fit: give shapes \[N, C\] and \[N\]"
    ):
        calibration(probabilities, labels[1:])
    with pytest.raises(
        UserError, match="row 2 of the probabilities is not a distribution: give the output of a softmax"
    ):
        calibration(np.where(np.arange(5)[:, None] == 2, np.nan, probabilities), labels)
    with pytest.raises(UserError, match="row 0 of the probabilities is not a distribution"):
        calibration(np.log(probabilities), labels)
    with pytest.raises(UserError, match=r"label 4 is not an index into 4 emotions: use 0\.\.3"):
        calibration(probabilities, np.full(5, 4))
    with pytest.raises(UserError, match="no utterance has a label"):
        calibration(probabilities, np.full(5, -1))
    with pytest.raises(UserError, match="bins is 0: give at least 1"):
        calibration(probabilities, labels, bins=0)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_reliability_diagram_shows_the_bins(tmp_path, monkeypatch, suffix):
    seen, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **options: seen.append(figure) or save(figure, *args, **options)
    )
    found = calibration(*predictions())
    plot_reliability(found, tmp_path / f"reliability.{suffix}", "LFVD on meld, test")
    above, below = seen[0].axes
    assert above.get_title().startswith("LFVD on meld, test\n")
    assert f"expected calibration error {100 * found.expected_error:.1f} %" in above.get_title()
    filled = found.count > 0
    assert [bar.get_height() for bar in above.patches[: filled.sum()]] == found.accuracy[filled].tolist()
    assert [bar.get_height() for bar in below.patches] == found.count[filled].tolist()
    if suffix == "png":
        assert imread(tmp_path / "reliability.png").std() > 0.01
