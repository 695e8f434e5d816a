"""A run says which features training has not prepared it for; constant columns have no effect on its predictions."""

import dataclasses
import html

import numpy as np
import pandas as pd
import pytest
from tiny import linear_config, tiny_corpus

import jmer
from jmer.data import make_corpus
from jmer.runs import write_results

pytestmark = pytest.mark.usefixtures("no_figures")


def with_columns(corpus, **values):
    """Returns the corpus with text columns 0 and 1 set to what each split names, zero in the others."""
    splits = {split: corpus.conversations(split) for split in corpus.splits}
    return make_corpus(
        {split: [_changed(c, *values.get(split, (0, 0))) for c in found] for split, found in splits.items()},
        corpus.card,
    )


def _changed(conversation, first, second):
    text, there = conversation.features["text"].copy(), conversation.available["text"]
    text[there, 0], text[there, 1] = first, second
    return dataclasses.replace(conversation, features={**conversation.features, "text": text})


@pytest.mark.parametrize("changes", [{}, {"data__normalization": "none"}], ids=["standard", "none"])
def test_spikes_in_constant_columns_change_no_prediction(tmp_path, changes):
    plain, lines = with_columns(tiny_corpus()), []
    run = jmer.train(
        linear_config(training__parallel="jit", training__epochs=1, **changes), plain, tmp_path, log=lines.append
    )
    assert "text: 2 of 6 columns are constant in training and ignored" in lines
    loaded = jmer.load_run(tmp_path)
    spiked = with_columns(plain, test=(4000, 0))
    pd.testing.assert_frame_equal(loaded.predict(spiked), run.predict(plain))
    count = sum(c.available["text"].sum() for c in spiked.conversations("test"))
    found = loaded.predictor.outliers(spiked.conversations("test"))
    assert found["text"] == (0, 0, count, 1)
    assert not any(loaded.predictor.outliers(plain.conversations("test"))["text"])
    lines.clear()
    write_results(tmp_path, spiked, log=lines.append, labelled=False)
    (line,) = (line for line in lines if "differ" in line and line.startswith("test: "))
    assert line.startswith(f"test: {count} values of text in 1 column differ from the only value in training")


def test_the_results_of_a_run_count_outliers_and_clip_them(tmp_path):
    spiked, lines = with_columns(tiny_corpus(), test=(4000, 0)), []
    spiked = make_corpus(
        {
            split: [
                dataclasses.replace(
                    c, features={**c.features, "audio": c.features["audio"] * (1 + 999 * (split == "test"))}
                )
                for c in spiked.conversations(split)
            ]
            for split in spiked.splits
        },
        spiked.card,
    )
    run = jmer.train(
        linear_config(training__parallel="jit", training__epochs=1, data__clip=1.5), spiked, tmp_path, log=lines.append
    )
    (dropped,) = (line for line in lines if "differ" in line)
    (far,) = (line for line in lines if "outside" in line)
    assert (
        dropped.startswith("test: ") and "values of text in 1 column differ from the only value in training" in dropped
    )
    assert far.startswith("test: ") and far.endswith("(clipped to 1.5 standard deviations)")
    for page in ("report.md", "report.html"):
        assert all(line in (tmp_path / page).read_text() for line in (dropped, far, "text: 2 of 6 columns"))
    for split in spiked.splits:
        for c in run.predictor.normalize(spiked.conversations(split)):
            assert np.abs(np.concatenate(list(c.features.values()), axis=1)).max() <= 1.5


def test_the_results_of_a_run_have_the_leaks_of_its_corpus(tmp_path):
    made, lines = tiny_corpus(), []
    splits = {split: made.conversations(split) for split in made.splits}
    longest = max(splits["train"], key=lambda c: c.available["text"].sum())
    leaking = make_corpus(splits | {"test": [*splits["test"], dataclasses.replace(longest, id="copy")]}, made.card)
    jmer.train(linear_config(training__parallel="jit", training__epochs=1), leaking, tmp_path, log=lines.append)
    (warning,) = (line for line in lines if line.startswith("warning: "))
    measured = "1 of 8 conversations have mostly the same features as one of train ('copy')"
    assert warning == f"warning: duplicates, test: {measured}; training has seen them: remove them"
    text, page = (html.unescape((tmp_path / name).read_text()) for name in ("report.md", "report.html"))
    assert "**The corpus may mislead** (duplicates, test): see the leaks and shifts between its splits." in text
    assert "<strong>The corpus may mislead</strong> (duplicates, test)" in page
    for finding in jmer.data.probe(leaking):
        assert finding.measured in page and finding.measured.replace("_", r"\_") in text.replace(r"\.", ".")
