"""A run knows its corpus by what it contains: both may move, and another corpus is refused or kept apart."""

import dataclasses
import shutil

import numpy as np
import pytest
from tiny import linear_config, tiny_corpus

import jmer
from jmer.api import default_workdir
from jmer.command import exit_status
from jmer.data import load_corpus, make_corpus
from jmer.data.corpus import save_corpus
from jmer.errors import UserError
from jmer.main import main
from jmer.runs import group_runs, write_results
from jmer.runs.directory import OTHER_CORPORA_FOLDER, read_facts

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder that holds a corpus and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    save_corpus(tiny_corpus(), folder / "corpus")
    jmer.train(linear_config(), folder / "corpus", folder / "run", log=None)
    return folder


@pytest.fixture
def place(trained, tmp_path):
    """A copy of that folder, in another place."""
    shutil.copytree(trained, tmp_path / "place")
    shutil.move(tmp_path / "place" / "run", tmp_path / "run")
    return tmp_path / "run", tmp_path / "place" / "corpus"


@pytest.fixture
def at_home(place):
    """The same, where the run has its corpus' new place on record."""
    run, corpus = place
    jmer.train(linear_config(), corpus, run, log=None)
    return place


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def other_labels(conversation):
    return dataclasses.replace(conversation, labels=np.where(conversation.labels == 0, 1, conversation.labels))


def louder(conversation):
    return dataclasses.replace(
        conversation, features=conversation.features | {"audio": conversation.features["audio"] * 2}
    )


def others_speak(conversation):
    return dataclasses.replace(conversation, speakers=["someone"] * len(conversation))


def retold(conversation):
    return dataclasses.replace(conversation, sentences=["hm"] * len(conversation))


def change(folder, split, how):
    """Replaces a saved corpus by one of which the first conversations of a split differ."""
    made = load_corpus(folder)
    splits = {name: made.conversations(name) for name in made.splits}
    if how is None:
        splits[split] = splits[split][1:]
    else:
        splits[split] = [how(c) for c in splits[split]]
    again = make_corpus(splits, made.card)
    shutil.rmtree(folder)
    save_corpus(again, folder)


CHANGES = {
    "the labels of train differ": ("train", other_labels),
    "the audio features of validation differ": ("validation", louder),
    "the speakers of test differ": ("test", others_speak),
    "the utterances of train differ (50 in 11 conversations there and 46 in 10 conversations here)": ("train", None),
}


@pytest.mark.parametrize("said", CHANGES)
def test_changed_data_at_the_same_path_is_another_corpus(said, trained, place):
    run, corpus = place
    change(corpus, *CHANGES[said])
    before = contents(run)
    for epochs in (2, 3):
        with pytest.raises(UserError) as refused:
            jmer.train(linear_config(training__epochs=epochs), corpus, run, log=None)
        expected = (
            f"{run} was trained on another version of corpus 'synthetic-iemocap4': {said}; choose another workdir"
        )
        assert str(refused.value) == expected
    assert contents(run) == before


def test_the_same_corpus_is_resumed_wherever_it_lies(place, monkeypatch):
    run, corpus = place
    monkeypatch.chdir(corpus.parent)
    for epochs, spelling in ((2, f"{corpus}/"), (3, "corpus"), (4, f"../{corpus.parent.name}/./corpus/")):
        assert jmer.train(linear_config(training__epochs=epochs), spelling, run, log=None).epochs == epochs
    made = load_corpus("corpus")
    in_memory = make_corpus(
        {split: made.conversations(split) for split in made.splits}, dataclasses.replace(made.card, name="renamed")
    )
    assert jmer.train(linear_config(training__epochs=5), in_memory, run, log=None).epochs == 5
    change(corpus, "train", retold)
    assert jmer.train(linear_config(training__epochs=6), corpus, run, log=None).epochs == 6
    assert read_facts(run).corpus == load_corpus(corpus).identity != made.identity


def evaluate(run, corpus):
    """Evaluates through the command line; returns the exit status."""
    return exit_status(main, ["--workdir", str(run), "--mode=evaluate", *([f"--corpus={corpus}"] if corpus else [])])


def test_evaluating_the_training_corpus_elsewhere_writes_to_the_runs_own_folder(place):
    run, corpus = place
    expected = (run / "scores.json").read_bytes()
    (run / "scores.json").unlink()
    assert evaluate(run, corpus) == 0
    assert (run / "scores.json").read_bytes() == expected and not (run / OTHER_CORPORA_FOLDER).exists()


def test_evaluating_changed_data_at_the_same_path_leaves_the_scores_of_the_run(at_home, capfd):
    run, corpus = at_home
    before = contents(run)
    change(corpus, "test", other_labels)
    with pytest.raises(UserError, match=r"the labels of test differ; give the corpus that lies in .*/corpus to"):
        jmer.load_run(run).evaluate()
    assert evaluate(run, None) == 0
    (made,) = (run / OTHER_CORPORA_FOLDER).iterdir()
    assert f"the labels of test differ; results go to {made}" in capfd.readouterr().out
    assert (made / "scores.json").exists()
    assert {path: found for path, found in contents(run).items() if made not in path.parents} == before
    change(corpus, "test", louder)
    assert evaluate(run, None) == 0
    assert len(list((run / OTHER_CORPORA_FOLDER).iterdir())) == 2


def test_a_corpus_that_is_gone(at_home, capfd):
    run, corpus = at_home
    moved = shutil.move(corpus, corpus.with_name("moved"))
    expected = (
        f"{run} was trained on corpus 'synthetic-iemocap4' in {corpus}, which is not there: give the corpus "
        "(--corpus), wherever it is now"
    )
    with pytest.raises(UserError) as refused:
        jmer.load_run(run).evaluate()
    assert str(refused.value) == expected
    assert evaluate(run, None) == 2
    assert capfd.readouterr().err == f"error: {expected}\n"
    assert evaluate(run, moved) == 0


def test_runs_of_different_corpora_are_no_repetitions(trained, tmp_path):
    corpus = shutil.copytree(trained / "corpus", tmp_path / "corpus")
    runs = [jmer.load_run(trained / "run")]
    jmer.train(linear_config(seed=1), corpus, tmp_path / "moved", log=None)
    group = group_runs([*runs, jmer.load_run(tmp_path / "moved")])
    assert len(group) == 2 and group.ensemble.training_corpus().identity == runs[0].facts.corpus
    change(corpus, "train", other_labels)
    jmer.train(linear_config(seed=1), corpus, tmp_path / "other", log=None)
    message = (
        r"other was trained on another version of corpus '.*' than .*run: the labels of train differ; leave it out$"
    )
    with pytest.raises(UserError, match=message):
        group_runs([*runs, jmer.load_run(tmp_path / "other")])


def test_the_default_folder_is_that_of_the_configuration_and_the_contents(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    made = load_corpus("corpus")

    def folder(corpus, **changes):
        config = linear_config(data__path=corpus.source, **changes)
        return default_workdir(config, "", corpus)

    assert folder(made) == folder(load_corpus(trained / "corpus")) == folder(tiny_corpus())
    shutil.copytree("corpus", tmp_path / "corpus")
    change(tmp_path / "corpus", "train", other_labels)
    assert folder(load_corpus(tmp_path / "corpus")) != folder(made) != folder(made, seed=1)


def test_predictions_of_a_corpus_with_other_labels_keep_apart(place):
    """Though the run was trained without looking at them."""
    run, corpus = place
    change(corpus, "test", other_labels)
    write_results(run, load_corpus(corpus), log=lambda line: None, labelled=False)
    assert len(list((run / OTHER_CORPORA_FOLDER).iterdir())) == 1
