"""Dimensional targets: in cards, corpora, sources and batches; a corpus without them is what it was."""

import dataclasses
import json
import pickle

import jax
import numpy as np
import pytest
from test_corpus import corpus as plain_corpus
from tiny import WIDTHS, tiny_corpus

from jmer.batch import Batch
from jmer.data import Card, make_conversation, make_corpus
from jmer.data.batching import batches, locate
from jmer.data.convert import convert
from jmer.data.corpus import load_saved, save_corpus
from jmer.data.examples import make_examples
from jmer.data.frames import single_utterances
from jmer.data.identity import difference
from jmer.data.inspect import describe
from jmer.data.packing import make_packing
from jmer.data.resident import gather, make_resident, resident_bytes
from jmer.errors import UserError

NAN = float("nan")
SCALES = {"valence": (1.0, 5.0), "arousal": (-1.0, 1.0)}
TEXT = np.arange(6.0).reshape(3, 2)
VALENCE = (1, None, 4.5)


def made(splits=None, scales=None, **attributes):
    """A corpus of one conversation with a valence, one without, and what else is given of the first one."""
    first = make_conversation(
        {"text": TEXT}, labels=[0, -1, 1], attributes={"valence": VALENCE, **attributes} if attributes != {} else None
    )
    return make_corpus({"train": [first]}, emotions=("calm", "angry"), attributes=scales or SCALES)


def tiny_with_attributes():
    """The tiny corpus with two attributes, unlabelled here and there."""
    corpus, rng = tiny_corpus(), np.random.default_rng(1)

    def drawn(count, low, high):
        values = rng.uniform(low, high, count).astype(np.float32)
        return np.where(rng.random(count) < 0.2, np.float32(np.nan), values)

    def with_values(c):
        return dataclasses.replace(c, attributes={name: drawn(len(c), *scale) for name, scale in SCALES.items()})

    card = dataclasses.replace(corpus.card, attributes=SCALES)
    return make_corpus({s: [with_values(c) for c in corpus.conversations(s)] for s in corpus.splits}, card)


def line(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# In memory


def test_conversations_have_numbers_on_the_scale_of_the_card():
    conversation = make_conversation({"text": TEXT}, attributes={"valence": VALENCE})
    assert conversation.attributes["valence"].dtype == np.float32
    np.testing.assert_array_equal(conversation.attributes["valence"], [1, NAN, 4.5])
    corpus = make_corpus({"test": [conversation, make_conversation({"text": TEXT})]}, attributes=SCALES)
    assert corpus.card.attributes == SCALES
    first, second = corpus.conversations("test")
    np.testing.assert_array_equal(first.attributes["valence"], [1, NAN, 4.5])
    for values in (first.attributes["arousal"], *second.attributes.values()):
        np.testing.assert_array_equal(values, [NAN] * 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"valence": [1, 2]}, "attributes['valence'] has 2 entries: expected 3, one per utterance"),
        ({"valence": [1, "high", 2]}, "attributes['valence'][1] is 'high': expected a number, or None for none"),
        ({"valence": 3}, "attributes['valence'] is 3: expected a sequence of 3, one per utterance"),
        ([1, 2, 3], "attributes must be a mapping of name -> numbers, got list"),
    ],
)
def test_attributes_that_are_none_get_a_line(given, expected):
    assert line(make_conversation, {"text": TEXT}, attributes=given) == expected


@pytest.mark.parametrize(
    ("values", "scales", "expected"),
    [
        (
            {"valence": [1, 2, 3]},
            None,
            "attributes has no 'valence': expected its scale, attributes={'valence': (1, 5)}",
        ),
        ({}, {"valence": (5, 1)}, "attribute 'valence' has the scale 5 to 1: expected the lower end first"),
        ({}, {"valence": (1,)}, "attribute 'valence' has the scale (1,): expected its two ends"),
        ({}, {"valence": (1, NAN)}, "attribute 'valence' has the scale 1 to nan: expected the lower end first"),
        ({}, {"a,b": (1, 5)}, "attribute 'a,b': a name has letters, digits, '_' and '-' alone"),
        (
            {"valence": [1, 60, 3]},
            {"valence": (1, 5)},
            "test, conversation 'test-0000': utterance 2 has valence 60, far beyond its scale from 1 to 5: give the "
            "scale that the values have",
        ),
        (
            {"valence": [1, 2, 1e300]},
            {"valence": (1, 5)},
            "test, conversation 'test-0000': utterance 3 has valence inf, far beyond its scale from 1 to 5: give the "
            "scale that the values have",
        ),
    ],
)
def test_scales_that_are_none_get_a_line(values, scales, expected):
    conversation = make_conversation({"text": TEXT}, attributes=values)
    assert line(make_corpus, {"test": [conversation]}, attributes=scales) == expected


def test_values_may_lie_a_little_beyond_their_scale():
    conversation = make_conversation({"text": TEXT}, attributes={"valence": [0.5, 5.5, 3]})
    make_corpus({"test": [conversation]}, attributes={"valence": (1, 5)})


# Saved


def test_a_saved_corpus_has_its_attributes(tmp_path):
    corpus = tiny_with_attributes()
    save_corpus(corpus, tmp_path / "corpus")
    loaded = load_saved(tmp_path / "corpus")
    assert loaded.card == corpus.card
    for split in corpus.splits:
        for one, other in zip(corpus.conversations(split), loaded.conversations(split), strict=True):
            for name in SCALES:
                np.testing.assert_array_equal(one.attributes[name], other.attributes[name])
    assert loaded.identity == corpus.identity


def test_a_corpus_without_attributes_is_saved_as_ever(tmp_path):
    save_corpus(plain_corpus(), tmp_path / "corpus")
    assert "attributes" not in json.loads((tmp_path / "corpus" / "card.json").read_text())
    loaded = load_saved(tmp_path / "corpus")
    assert not loaded.card.attributes
    assert not any("attribute" in column for column in loaded.splits["train"].features)
    assert not any(c.attributes for c in loaded.conversations("train"))


def test_a_card_with_a_damaged_scale_gets_a_line(tmp_path):
    save_corpus(tiny_with_attributes(), tmp_path / "corpus")
    card = tmp_path / "corpus" / "card.json"
    card.write_text(card.read_text().replace("5.0", '"5.0"'))
    assert "card.json" in line(load_saved, tmp_path / "corpus")


def test_attributes_are_part_of_what_a_corpus_is():
    corpus = tiny_with_attributes()
    plain = make_corpus({s: tiny_corpus().conversations(s) for s in corpus.splits}, tiny_corpus().card)
    rescaled = dataclasses.replace(
        corpus, card=dataclasses.replace(corpus.card, attributes=SCALES | {"valence": (0, 6)})
    )
    assert len({corpus.identity.fingerprint, plain.identity.fingerprint, rescaled.identity.fingerprint}) == 3
    assert difference(corpus.identity, plain.identity, ("text",)) == ""
    assert difference(corpus.identity, rescaled.identity, ("text",), ("arousal",)) == ""
    found = difference(corpus.identity, rescaled.identity, ("text",), ("valence", "arousal"))
    assert "the valence values of train differ" in found


# Examples and batches


def test_examples_keep_the_attributes_of_their_utterances():
    (conversation,) = made(arousal=[0.1, 0.2, 0.3]).conversations("train")
    (shortened,) = make_examples([conversation], frames=False, context="drop_unlabelled")
    np.testing.assert_array_equal(shortened.attributes["valence"], np.float32([1, 4.5]))
    apart = single_utterances([conversation])
    np.testing.assert_array_equal([one.attributes["arousal"][0] for one in apart], np.float32([0.1, 0.2, 0.3]))


def test_batches_hold_attributes_from_minus_one_to_one():
    conversations = tiny_with_attributes().conversations("train")
    scales = {"arousal": SCALES["arousal"], "valence": SCALES["valence"]}
    for batch in batches(conversations, WIDTHS, batch_size=4, attributes=scales):
        assert batch.attributes.dtype == np.float32 and batch.attributes.shape == (*batch.mask.shape, 2)
        assert np.isnan(batch.attributes[~batch.mask]).all()
        for position, row, _, real in locate(batch.conversation_ids, conversations):
            expected, own = conversations[position].attributes, batch.attributes[row, real]
            np.testing.assert_allclose(own[:, 0], expected["arousal"], rtol=1e-6)
            np.testing.assert_allclose(own[:, 1], (expected["valence"] - 3) / 2, atol=1e-6)


def test_batches_without_attributes_are_what_they_were():
    with_values, without = tiny_with_attributes().conversations("train"), tiny_corpus().conversations("train")
    for one, other in zip(
        batches(with_values, WIDTHS, batch_size=4), batches(without, WIDTHS, batch_size=4), strict=True
    ):
        assert one.attributes is None and isinstance(one, Batch)
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert resident_bytes(with_values, WIDTHS, SCALES) == resident_bytes(without, WIDTHS) + 8 * sum(map(len, without))


@pytest.mark.parametrize("pack", [True, False])
def test_gathered_batches_have_the_attributes_of_the_host(pack):
    conversations = tiny_with_attributes().conversations("train")
    packing = make_packing(conversations, batch_size=4, pack=pack)
    resident = jax.device_put(make_resident(conversations, WIDTHS, SCALES))
    made = batches(conversations, WIDTHS, batch_size=4, packing=packing, seed=1, attributes=SCALES)
    for expected in made:
        batch = jax.jit(gather, static_argnums=2)(resident, expected.conversation_ids, packing.length)
        np.testing.assert_array_equal(batch.attributes, expected.attributes)


# Sources


def table(**columns):
    """Columns of a table with a conversation of three rows to train, and the first of them again to validate."""
    given = {"dialogue": ["d"] * 3, "speaker": ["a"] * 3, "emotion": [0, 1, 0], "split": ["train"] * 3, "f": TEXT}
    arrays = {name: np.asarray(values) for name, values in {**given, **columns}.items()}
    return {name: np.concatenate([values, LAST.get(name, values[:1])]) for name, values in arrays.items()}


COLUMNS = [
    "--conversation",
    "dialogue",
    "--speaker",
    "speaker",
    "--label",
    "emotion",
    "--split",
    "split",
    "--text",
    "f",
]
FLAGS = [*COLUMNS, "--emotions", "calm,angry"]
LAST = {"dialogue": ["e"], "split": ["dev"]}


def converted(folder, name, *flags):
    convert(["table", str(folder / name), str(folder / "corpus"), *FLAGS, *flags])
    return load_saved(folder / "corpus")


def test_columns_of_a_table_become_attributes(tmp_path, capsys):
    vad = np.array([[1, 2, 3], [NAN, 5, 1], [2.5, 1, 5.5]], np.float32)
    np.savez(tmp_path / "a.npz", **table(V=[0.5, NAN, -1], vad=vad))
    corpus = converted(tmp_path, "a.npz", "--attributes", "V:-1:1,valence=vad_0:1:5,dominance=vad_2:1:5")
    assert corpus.card.attributes == {"V": (-1, 1), "valence": (1, 5), "dominance": (1, 5)}
    (conversation,) = corpus.conversations("train")
    np.testing.assert_array_equal(conversation.attributes["V"], np.float32([0.5, NAN, -1]))
    np.testing.assert_array_equal(conversation.attributes["valence"], vad[:, 0])
    np.testing.assert_array_equal(conversation.attributes["dominance"], vad[:, 2])
    assert "train: valence (1 to 5) of 2 utterances" in capsys.readouterr().out


def test_cells_of_a_csv_file_become_attributes(tmp_path):
    (tmp_path / "a.csv").write_text(
        "dialogue,speaker,emotion,split,f_0,f_1,act\nd,a,0,train,1,2,3.5\nd,a,1,train,1,2,\nd,b,0,train,3,1,1\n"
        "e,a,1,dev,3,1,1\n"
    )
    (tmp_path / "columns.yaml").write_text("attributes: [arousal=act:1:5]\n")
    corpus = converted(tmp_path, "a.csv", "--columns", str(tmp_path / "columns.yaml"))
    (conversation,) = corpus.conversations("train")
    np.testing.assert_array_equal(conversation.attributes["arousal"], np.float32([3.5, NAN, 1]))


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("V", "attributes: 'V' is not [NAME=]COLUMN:LOW:HIGH, as valence=V:1:5: write it so"),
        ("V:1:five", "attributes: 'V:1:five' is not [NAME=]COLUMN:LOW:HIGH, as valence=V:1:5: write it so"),
        ("V:5:1", "attributes: attribute 'V' has the scale 5 to 1: expected the lower end first"),
        ("V:1:5,V:0:1", "attributes: V, V are not all different: give each a name of its own"),
        ("W:1:5", "a.npz has no column 'W' for W: it has dialogue, speaker, emotion, split, f, V, vad"),
        (
            "v=vad_3:1:5",
            "a.npz: column 'vad' has shape (4, 2), and no 'vad_3' for v: number the entries of its vectors",
        ),
        ("vad:1:5", "a.npz: column 'vad' for vad has shape (4, 2): expected a number per row; vad_0 is the first of"),
        ("speaker:1:5", "a.npz"),
        ("V:0:1", "utterance 2 has V 3 (and 1 more), far beyond its scale from 0 to 1"),
    ],
)
def test_columns_that_are_no_attributes_get_a_line(tmp_path, flag, expected):
    np.savez(tmp_path / "a.npz", **table(V=[1, 3, 5], vad=TEXT))
    assert expected in line(converted, tmp_path, "a.npz", "--attributes", flag)
    assert not (tmp_path / "corpus").exists()


def dictionary(**more):
    rows = {"text": TEXT, "id": ["v$_$0", "v$_$1", "v$_$2"], "regression_labels": np.array([[-3.0], [0.5], [NAN]])}
    return {"train": rows | more, "valid": rows | more | {"id": ["w$_$0", "w$_$1", "w$_$2"]}}


def pickled(folder, content, *flags):
    (folder / "a.pkl").write_bytes(pickle.dumps(content))
    convert(["pickle", str(folder / "a.pkl"), str(folder / "corpus"), "--regression", "binary", *flags])
    return load_saved(folder / "corpus")


def test_regression_labels_of_a_dictionary_of_splits_become_attributes(tmp_path):
    corpus = pickled(tmp_path, dictionary(), "--attributes", "sentiment=regression_labels:-3:3")
    (conversation,) = corpus.conversations("train")
    np.testing.assert_array_equal(conversation.attributes["sentiment"], np.float32([-3, 0.5, NAN]))
    np.testing.assert_array_equal(conversation.labels, [0, 1, -1])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], "a.pkl, train: arousal has shape [2]: expected a number for each of 3 rows"),
        (["a", "b", "c"], "a.pkl, train: arousal is not a number per utterance"),
        (None, "a.pkl, train has no 'arousal' for arousal, only text, id, regression_labels"),
    ],
)
def test_keys_that_are_no_attributes_get_a_line(tmp_path, values, expected):
    content = dictionary() if values is None else dictionary(arousal=values)
    assert expected in line(pickled, tmp_path, content, "--attributes", "arousal:1:5")


def test_a_card_names_its_scales():
    with pytest.raises(ValueError, match="attribute 'valence' has the scale 5 to 1: expected the lower end first"):
        Card("c", {"text": 2}, ("calm",), "", False, attributes={"valence": (5, 1)})


def test_inspection_shows_what_is_labelled():
    text = describe(made(arousal=[0.5, 0.25, NAN]))
    assert "valence (1 to 5)" in text and "2, 2.75 ± 1.75" in text
    assert "arousal (-1 to 1)" in text and "2, 0.38 ± 0.12" in text
    assert "attribute" not in describe(plain_corpus())
