"""Examples: conversations as they are, without unlabelled utterances, or single utterances."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_corpus, train

from jmer.config import base_config, with_variants
from jmer.data import make_corpus
from jmer.data.examples import make_examples
from jmer.data.synthetic import Size, generate
from jmer.errors import UserError
from jmer.runs import write_results


def examples(corpus, split, **options):
    return make_examples(corpus.conversations(split), frames=corpus.card.frames, **options)


def unlabelled(conversation):
    return dataclasses.replace(conversation, labels=np.full_like(conversation.labels, -1))


def test_utterances_without_a_label_are_context_or_not_there():
    corpus = tiny_corpus()
    whole = corpus.conversations("train")
    assert any(0 < (c.labels == -1).sum() < len(c) for c in whole)
    assert [c.utterances for c in examples(corpus, "train")] == [c.utterances for c in whole]
    shortened = {c.id: c for c in examples(corpus, "train", context="drop_unlabelled")}
    assert list(shortened) == [c.id for c in whole if (c.labels != -1).any()]
    for c in whole:
        keep = [i for i in range(len(c)) if c.labels[i] != -1]
        if not keep:
            continue
        short = shortened[c.id]
        assert list(short.labels) == [c.labels[i] for i in keep]
        for field in ("utterances", "speakers", "sentences"):
            assert list(getattr(short, field)) == [getattr(c, field)[i] for i in keep]
        for m in c.features:
            np.testing.assert_array_equal(short.features[m], c.features[m][keep])
            np.testing.assert_array_equal(short.available[m], c.available[m][keep])


def test_a_split_without_any_label_stays_whole():
    corpus = tiny_corpus()
    bare = make_corpus({"test": [unlabelled(c) for c in corpus.conversations("test")]}, corpus.card)
    assert len(examples(bare, "test", context="drop_unlabelled")) == len(corpus.conversations("test"))


def test_frames_of_unlabelled_utterances_go_with_them():
    made = generate("synthetic-iemocap4-frames", sizes={"test": Size(2, 9, 5)})
    first, second = made.conversations("test")
    partly = dataclasses.replace(first, labels=np.where(np.arange(len(first)) == 1, -1, first.labels).astype(np.int32))
    corpus = make_corpus({"test": [partly, unlabelled(second)]}, made.card)
    rows = examples(corpus, "test", context="drop_unlabelled")
    assert [row.utterances[0] for row in rows] == [u for i, u in enumerate(first.utterances) if i != 1]
    np.testing.assert_array_equal(rows[1].features["audio"][0], first.features["audio"][2])


def test_what_is_no_context_is_refused():
    with pytest.raises(UserError, match=r"^data\.context is 'none': choose one of mask_unlabelled, drop_unlabelled$"):
        examples(tiny_corpus(), "train", context="none")


def test_scores_leave_dropped_utterances_out_and_predictions_do_not(tmp_path):
    corpus, config = tiny_corpus(), with_variants(base_config("lpgnet"), "tiny,text")
    config.data.context = "drop_unlabelled"
    config.training.update(epochs=1, batch_size=6, buckets=1, parallel="jit")
    workdir = tmp_path / "w"
    train(config, corpus, workdir)
    labels = np.concatenate([c.labels for c in corpus.conversations("test")])
    counts = {}
    for labelled in (True, False):
        write_results(workdir, corpus, log=lambda line: None, labelled=labelled)
        counts[labelled] = len(pd.read_csv(workdir / "predictions" / "test.csv"))
    assert counts == {True: (labels != -1).sum(), False: len(labels)}
