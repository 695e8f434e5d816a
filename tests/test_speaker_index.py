"""Speakers are numbered by appearance in a conversation, or by their names in the whole corpus."""

import dataclasses

import numpy as np
import pytest
from tiny import linear_config, tiny_corpus, train

import jmer
from jmer.data import make_corpus
from jmer.data.speakers import number_speakers
from jmer.errors import UserError
from jmer.pipeline import Pipeline
from jmer.runs.directory import read_json, write_json


def corpus_of(genders):
    """The tiny corpus with other names: of each split, the function of a position gives a speaker's name."""
    corpus = tiny_corpus()

    def named(split, conversation):
        speakers = [genders(split, i) for i in range(len(conversation))]
        return dataclasses.replace(conversation, speakers=speakers)

    splits = {split: [named(split, c) for c in corpus.conversations(split)] for split in corpus.splits}
    return make_corpus(splits, corpus.card)


def by_gender():
    """All conversations begin with M."""
    return corpus_of(lambda split, i: "MF"[i % 2])


def config(**changes):
    return linear_config(data__speaker_index="corpus", **changes)


def mmgcn(changes):
    """The smallest configuration of a model that adds a vector for each speaker."""
    return jmer.get_config("mmgcn:tiny", {"data.speaker_index": "corpus", **changes})


def test_numbers_are_those_of_the_names():
    (conversation, *_) = by_gender().conversations("train")
    assert number_speakers(conversation)[:3] == [0, 1, 0]
    assert number_speakers(conversation, ("F", "M"))[:3] == [1, 0, 1]
    with pytest.raises(
        UserError, match=rf"^conversation '{conversation.id}' has the speaker 'M', but training had only"
    ):
        number_speakers(conversation, ("F", "X"))


@pytest.mark.parametrize("resident", [1024, 0])
def test_every_batch_has_them(resident):
    pipeline = Pipeline.for_training(config(training__resident_megabytes=resident), by_gender())
    assert tuple(pipeline.config.data.speakers) == ("F", "M")
    for batch in (*pipeline.train_batches(0), *pipeline.evaluation_batches("validation")):
        first = np.diff(batch.segment_ids, prepend=-1, axis=1) > 0
        assert (batch.speakers[batch.mask & first] == 1).all() and set(batch.speakers[batch.mask]) == {0, 1}


def test_by_appearance_no_names_are_kept():
    pipeline = Pipeline.for_training(linear_config(), by_gender())
    assert tuple(pipeline.config.data.speakers) == ()
    batch = next(pipeline.train_batches(0))
    assert (batch.speakers[:, 0] <= 0).all()


def test_a_run_predicts_with_the_names_of_its_training(tmp_path):
    """A network that adds a vector for each speaker: the names decide, not who speaks first."""
    corpus = by_gender()
    run = jmer.train(mmgcn({"optimizer.learning_rate": 0.1}), corpus, tmp_path / "w", log=None)
    assert tuple(run.config.data.speakers) == ("F", "M")
    conversations = corpus.conversations("test")
    men = [dataclasses.replace(c, speakers=["M"] * len(c)) for c in conversations]
    women = [dataclasses.replace(c, speakers=["F"] * len(c)) for c in conversations]
    columns = [name for name in run.predict(men).columns if name.startswith("probability_")]
    of_men, of_women = (run.predict(c)[columns].to_numpy() for c in (men, women))
    assert np.abs(of_men - of_women).max() > 1e-3
    again = jmer.load_run(tmp_path / "w").predict(men)[columns].to_numpy()
    np.testing.assert_array_equal(again, of_men)
    config = read_json(tmp_path / "w" / "config.json")
    write_json(tmp_path / "w" / "config.json", config | {"data": config["data"] | {"speakers": []}})
    with pytest.raises(UserError, match=r"data.speakers is empty, with data.speaker_index=corpus"):
        jmer.load_run(tmp_path / "w")
    strangers = [dataclasses.replace(c, speakers=["X"] * len(c)) for c in conversations]
    with pytest.raises(
        UserError, match=r"has the speaker 'X', but training had only F, M: name the speakers alike, or "
    ):
        run.predict(strangers)


def test_a_speaker_whom_training_lacks_is_refused_before_it(tmp_path):
    corpus = corpus_of(lambda split, i: "MF"[i % 2] if split == "train" else "S")
    with pytest.raises(UserError, match=r"has the speaker 'S', but training had only F, M: name the speakers alike"):
        train(config(), corpus, tmp_path / "w")
    assert not (tmp_path / "w" / "metrics.jsonl").exists()


def test_more_names_than_a_model_tells_apart_are_refused():
    corpus = corpus_of(lambda split, i: f"speaker{i}")
    message = (
        r"^data.speaker_index is corpus, but the training split has \d+ names of speakers, and model.speakers is 2"
    )
    with pytest.raises(UserError, match=message):
        Pipeline.for_training(mmgcn({"model.speakers": 2}), corpus)


def test_an_unknown_index_is_refused():
    with pytest.raises(UserError, match=r"^data.speaker_index is 'name': choose one of appearance, corpus$"):
        Pipeline.for_training(linear_config(data__speaker_index="name"), tiny_corpus())


def test_the_names_cannot_be_set():
    with pytest.raises(UserError, match=r"data.speakers .*they come from the corpus; choose data.speaker_index"):
        jmer.get_config("lfvd", {"data.speakers": ("F", "M")})
