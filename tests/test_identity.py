"""A corpus is known by what it contains: not by its place, its name, or how its Arrow files are cut."""

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_corpus import CARD, conversation, corpus

from jmer.data import load_corpus
from jmer.data.convert import convert
from jmer.data.corpus import build_corpus, load_saved, save_corpus
from jmer.data.identity import Identity, difference
from jmer.data.synthetic import Size, generate
from jmer.json_values import from_json


def changed(**of_card):
    """The corpus of test_corpus, rebuilt with a card of other fields."""
    return build_corpus(
        {split: corpus().conversations(split) for split in ("train", "test")}, dataclasses.replace(CARD, **of_card)
    )


def with_first(change):
    """The corpus with another first training conversation."""
    first, *rest = corpus().conversations("train")
    return build_corpus({"train": [change(first), *rest], "test": corpus().conversations("test")}, CARD)


def replacing(**fields):
    return lambda c: dataclasses.replace(c, **{name: new(getattr(c, name)) for name, new in fields.items()})


def one_bit(features):
    values = features["audio"].copy()
    values.view(np.int32)[0, 0] ^= 1
    return features | {"audio": values}


SAME = {
    "another name and provenance": lambda folder: changed(name="other", provenance="elsewhere", synthetic=False),
    "saved": lambda folder: saved(folder / "one"),
    "moved": lambda folder: load_corpus(str(shutil.move(saved(folder / "one").source, folder / "two")) + "/"),
    "a record batch per conversation": lambda folder: build_corpus(
        {split: corpus().conversations(split) for split in ("train", "test")}, CARD, folder=folder
    ),
    "modalities in another order": lambda folder: changed(widths={"audio": 2, "text": 3}),
    "rows selected": lambda folder: selected([1, 0, 2], [1, 0, 2]),
}


def saved(folder):
    save_corpus(corpus(), folder)
    return load_saved(folder)


def selected(*orders):
    made = corpus()
    for order in orders:
        made.splits["train"] = made.splits["train"].select(order)
    return made


@pytest.mark.parametrize("how", SAME)
def test_the_same_contents_have_the_same_identity(how, tmp_path):
    one, other = corpus().identity, SAME[how](tmp_path).identity
    assert other == one and other.fingerprint == one.fingerprint
    assert difference(one, other, CARD.modalities) == ""


OTHERS = {
    "the utterances of train differ (11 in 3 conversations there and 11 in 3 conversations here)": (
        lambda: with_first(replacing(id=str.upper)),
        lambda: with_first(replacing(utterances=lambda names: [f"{name}'" for name in names])),
        lambda: selected([1, 0, 2]),
    ),
    "the utterances of train differ (11 in 3 conversations there and 6 in 2 conversations here)": (
        lambda: selected([0, 1]),
    ),
    "the labels of train differ": (
        lambda: with_first(replacing(labels=lambda labels: np.where(labels == 0, 1, 0).astype(np.int32))),
    ),
    "the speakers of train differ": (lambda: with_first(replacing(speakers=lambda names: ["B"] * len(names))),),
    "the audio features of train differ": (
        lambda: with_first(replacing(features=one_bit)),
        lambda: with_first(replacing(available=lambda masks: masks | {"audio": ~masks["audio"]})),
    ),
    "the labels and audio features of train differ": (
        lambda: with_first(replacing(labels=lambda labels: np.full_like(labels, -1), features=one_bit)),
    ),
    "the emotions differ (calm, angry there and angry, calm here)": (lambda: changed(emotions=("angry", "calm")),),
    "there is no test split here": (lambda: build_corpus({"train": corpus().conversations("train")}, CARD),),
    "there is no validation split there": (
        lambda: build_corpus({s: corpus().conversations(s) for s in corpus().splits} | {"validation": [LAST]}, CARD),
    ),
}
LAST = conversation("e", 2)


@pytest.mark.parametrize(("expected", "make"), [(said, make) for said, makers in OTHERS.items() for make in makers])
def test_other_contents_are_told_apart_by_what_differs(expected, make):
    one, other = corpus().identity, make().identity
    assert difference(one, other, CARD.modalities) == expected
    assert one.fingerprint != other.fingerprint


def test_the_boundaries_of_conversations_and_words_count():
    """Parts of equal bytes whose lengths differ."""
    one, other = conversation("a", 4), conversation("a", 4)
    halves = [dataclasses.replace(one, **part(one, s)) for s in (slice(0, 1), slice(1, 4))]
    again = [dataclasses.replace(other, **part(other, s)) for s in (slice(0, 2), slice(2, 4))]
    found = [build_corpus({"train": [halves[0], halves[1]]}, CARD), build_corpus({"train": again}, CARD)]
    assert found[0].identity.fingerprint != found[1].identity.fingerprint
    words = [with_first(replacing(speakers=lambda _, n=n: [n])).identity for n in ("AB", "A\0B", 'A", "B')]
    assert len({identity.fingerprint for identity in words}) == 3


def part(c, s):
    lists = {name: getattr(c, name)[s] for name in ("utterances", "speakers", "labels", "sentences")}
    arrays = {name: {m: x[s] for m, x in getattr(c, name).items()} for name in ("features", "available")}
    return lists | arrays


def test_transcripts_and_modalities_that_are_not_read_may_differ():
    one = corpus().identity
    told = with_first(replacing(sentences=lambda texts: ["corrected"] * len(texts))).identity
    assert difference(one, told, CARD.modalities) == "" and told.fingerprint == one.fingerprint and told != one
    louder = with_first(replacing(features=one_bit)).identity
    assert difference(one, louder, ["text"]) == "" and louder.fingerprint != one.fingerprint


def test_an_identity_is_read_as_it_was_written():
    identity = corpus().identity
    assert from_json(Identity, dataclasses.asdict(identity)) == identity
    with pytest.raises(ValueError, match=r"^splits.train.conversations is missing$"):
        from_json(Identity, {"emotions": [], "splits": {"train": {"digests": {}}}})


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(folder):
    rng, ids = np.random.default_rng(0), np.repeat([f"d{i}" for i in range(8)], 4)
    splits = np.where(ids > "d5", "test", "train")
    text = rng.normal(size=(32, 3)).astype(np.float32)
    np.savez(folder / "t.npz", d=ids, s=["x", "y"] * 16, e=[0, 1] * 16, p=splits, f=text)
    return ["table", "--conversation=d", "--speaker=s", "--label=e", "--split=p", "--text=f", "--emotions=a,b", "t.npz"]


def pickled(folder):
    rng, names = np.random.default_rng(0), [f"d{i}" for i in range(8)]
    features = [{n: [rng.normal(size=w) for _ in range(3)] for n in names} for w in (3, 2, 2)]
    ids, speakers = {n: [f"{n}_{i}" for i in range(3)] for n in names}, {n: ["M", "F", "M"] for n in names}
    labels, sentences = {n: [0, 1, 5] for n in names}, {n: ["hm"] * 3 for n in names}
    (folder / "t.pkl").write_bytes(pickle.dumps((ids, speakers, labels, *features, sentences, names[:6], names[6:])))
    return ["pickle", "--emotions=a,b,c,d,e,f", "t.pkl"]


def frames(folder):
    """A table, and a file of frames per utterance: the corpus is made in a file."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    for i in range(32):
        np.save(folder / "audio" / f"u{i}.npy", rng.normal(size=(1 + i % 3, 2)).astype(np.float32))
    _, *flags, source = table(folder)
    with np.load(source) as columns:
        np.savez(source, **columns, u=[f"u{i}" for i in range(32)])
    return ["frames", *(flag for flag in flags if flag != "--text=f"), "--utterance=u", "--audio=audio", source]


@pytest.mark.parametrize("source", [table, pickled, frames])
def test_the_same_source_gives_the_same_files(source, tmp_path, monkeypatch):
    """A part of the training split is held out, so that rows are selected, too."""
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        convert([*source(tmp_path / name), name])
        made.append(tmp_path / name / name)
    assert list(load_saved(made[0]).splits) == ["train", "validation", "test"]
    assert files(made[0]) == files(made[1]) and len(files(made[0])) == 12


def test_the_files_of_other_contents_have_other_fingerprints(tmp_path):
    """Which `datasets` names its caches after, of the transcripts too."""
    told = with_first(replacing(sentences=lambda texts: ["corrected"] * len(texts)))
    save_corpus(told, tmp_path / "told")
    rows = load_saved(tmp_path / "told").splits["train"], saved(tmp_path / "one").splits["train"]
    assert rows[0]._fingerprint != rows[1]._fingerprint


def test_built_in_corpora_have_the_same_identity_on_every_processor():
    """Whose kernels add the products of a matrix product in other orders."""
    names, sizes = ("synthetic-meld", "synthetic-iemocap4-frames"), {"train": (3, 40, 20)}
    program = (
        "from jmer.data.synthetic import Size, generate\n"
        f"for name in {names}: print(generate(name, sizes={{'train': Size(*{sizes['train']})}}).identity.fingerprint)"
    )
    command, old = [sys.executable, "-c", program], os.environ | {"OPENBLAS_CORETYPE": "PRESCOTT"}
    elsewhere = subprocess.run(command, env=old, capture_output=True, text=True, check=True).stdout.split()
    here = [generate(name, sizes={"train": Size(*sizes["train"])}).identity.fingerprint for name in names]
    assert elsewhere == here
