"""Synthetic corpora have the sizes of the imitated ones, are reproducible, and reward modalities and context."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from jmer.data.corpus import save_corpus
from jmer.data.frames import mean_pooled
from jmer.data.load import load_corpus
from jmer.data.synthetic import NAMES, Size, generate
from jmer.errors import UserError

IEMOCAP_WIDTHS = {"text": 1024, "audio": 1582, "visual": 342}
# Conversations and utterances of training with validation, and of test; longest conversation; label frequencies.
REAL = {
    "synthetic-meld": (
        {"train": (1038, 9989), "validation": (114, 1109), "test": (280, 2610)},
        {"train": 24, "validation": 23, "test": 33},
        {"text": 1024, "audio": 300, "visual": 342},
        ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
        (4710, 1205, 268, 683, 1743, 271, 1109),
    ),
    "synthetic-iemocap6": (
        {"train+validation": (120, 5810), "test": (31, 1623)},
        {"train": 110},
        IEMOCAP_WIDTHS,
        ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
        (504, 839, 1324, 933, 742, 1468),
    ),
    "synthetic-iemocap4": (
        {"train+validation": (120, 4290), "test": (31, 1241)},
        {"train": 110},
        IEMOCAP_WIDTHS,
        ("happy", "sad", "neutral", "angry"),
        (1194, 839, 1324, 933),
    ),
}
REAL["synthetic-iemocap4-frames"] = REAL["synthetic-iemocap4"]
NARROW = {"text": 24, "audio": 20, "visual": 20}
SMALL = {"train": Size(12, 90, 14), "validation": Size(4, 30, 9), "test": Size(4, 25, 12)}


def small(name, seed=0):
    return generate(name, seed, sizes=SMALL, widths=NARROW)


def everything(corpus):
    conversations = [c for split in corpus.splits for c in corpus.conversations(split)]
    return mean_pooled(conversations) if corpus.card.frames else conversations


@pytest.fixture(scope="module", params=NAMES)
def narrow(request):
    """Returns a corpus of full size with narrow features."""
    return generate(request.param, widths=NARROW)


def test_sizes_are_those_of_the_imitated_corpus(narrow):
    totals, longest, *_ = REAL[narrow.card.name]
    for parts, (conversations, utterances) in totals.items():
        chosen = [c for part in parts.split("+") for c in narrow.conversations(part)]
        assert (len(chosen), sum(map(len, chosen))) == (conversations, utterances)
    for split, length in longest.items():
        assert max(map(len, narrow.conversations(split))) == length
    assert min(map(len, everything(narrow))) >= 1


def test_emotions_and_their_balance(narrow):
    *_, emotions, counts = REAL[narrow.card.name]
    assert narrow.card.emotions == emotions
    labels = np.concatenate([c.labels for c in everything(narrow)])
    assert labels.dtype == np.int32
    got = np.bincount(labels, minlength=len(emotions)) / len(labels)
    np.testing.assert_allclose(got, np.array(counts) / sum(counts), rtol=0.25)


def test_speakers(narrow):
    numbers = [len(set(c.speakers)) for c in everything(narrow)]
    if narrow.card.name == "synthetic-meld":
        assert max(numbers) in range(6, 10)
        assert 2 <= np.median(numbers) <= 3
    else:
        assert set(numbers) == {2}
        met = {s for split in ("train", "validation") for c in narrow.conversations(split) for s in c.speakers}
        assert met.isdisjoint(s for c in narrow.conversations("test") for s in c.speakers)


def repeats(conversations):
    """Returns how often speakers repeat the emotion of their last utterance, and the rate expected by chance."""
    same, labels = [], np.concatenate([c.labels for c in conversations])
    for c in conversations:
        last = {}
        for speaker, label in zip(c.speakers, c.labels, strict=True):
            if speaker in last:
                same.append(last[speaker] == label)
            last[speaker] = label
    return np.mean(same), np.sum((np.bincount(labels) / len(labels)) ** 2)


def test_emotions_have_inertia(narrow):
    observed, chance = repeats(narrow.conversations("train"))
    assert observed > chance + 0.15


def test_the_card_says_that_it_is_synthetic():
    for name in NAMES:
        card = small(name).card
        assert card.name == name
        assert card.name.startswith("synthetic-")
        assert card.synthetic
        assert "not real" in card.provenance


def test_the_seed_determines_everything():
    one, same, other = (everything(small("synthetic-meld", seed)) for seed in (3, 3, 4))
    for a, b in zip(one, same, strict=True):
        assert (a.id, list(a.utterances), list(a.speakers)) == (b.id, list(b.utterances), list(b.speakers))
        np.testing.assert_array_equal(a.labels, b.labels)
        for m in NARROW:
            np.testing.assert_array_equal(a.features[m], b.features[m])
            np.testing.assert_array_equal(a.available[m], b.available[m])
    assert [len(c) for c in one] != [len(c) for c in other]


def test_names_are_unique_and_unavailable_features_are_zero(narrow):
    conversations = everything(narrow)
    assert len({c.id for c in conversations}) == len(conversations)
    assert all(len(set(c.utterances)) == len(c) for c in conversations)
    missing = dict.fromkeys(NARROW, 0)
    for c in conversations:
        for m, width in NARROW.items():
            assert c.features[m].dtype == np.float32
            assert c.features[m].shape == (len(c), width)
            assert np.isfinite(c.features[m]).all()
            np.testing.assert_array_equal(c.features[m].any(axis=1), c.available[m])
            missing[m] += np.count_nonzero(~c.available[m])
    assert missing["text"] == 0 < missing["audio"] < missing["visual"] < 0.05 * sum(map(len, conversations))


def test_sizes_may_be_given():
    corpus = small("synthetic-iemocap6")
    for split, (conversations, utterances, longest) in SMALL.items():
        lengths = [len(c) for c in corpus.conversations(split)]
        assert (len(lengths), sum(lengths), max(lengths)) == (conversations, utterances, longest)
    assert corpus.card.widths == NARROW


@pytest.mark.parametrize("size", [Size(4, 3, 1), Size(4, 12, 12), Size(4, 41, 10), Size(0, 0, 0)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UserError, match="size of split 'train' is impossible"):
        generate("synthetic-meld", sizes={"train": size})


@pytest.mark.parametrize("size", [Size(4, 4, 1), Size(4, 13, 10), Size(4, 40, 10), Size(1, 7, 7)])
def test_the_tightest_sizes_are_met(size):
    corpus = generate("synthetic-meld", sizes={"train": size}, widths=NARROW)
    lengths = [len(c) for c in corpus.conversations("train")]
    assert (len(lengths), sum(lengths), max(lengths)) == size


def test_load_corpus_takes_names_and_folders(tmp_path):
    save_corpus(small("synthetic-meld"), tmp_path / "c")
    assert load_corpus(tmp_path / "c").card == load_corpus(str(tmp_path / "c")).card == small("synthetic-meld").card
    with pytest.raises(UserError, match=r"no corpus 'meld'.*synthetic-meld, synthetic-iemocap6, synthetic-iemocap4"):
        load_corpus("meld")
    with pytest.raises(UserError, match="the names are synthetic-meld"):
        generate("meld")


def inputs(conversations, modalities, context):
    rows = []
    for c in conversations:
        own = np.concatenate([c.features[m] for m in modalities], axis=1)
        for t in range(len(c)):
            window = [own[u] if 0 <= u < len(c) else 0 * own[0] for u in range(t - context, t + context + 1)]
            rows.append(np.concatenate(window))
    return np.stack(rows)


def probe(corpus, modalities, context, strength):
    """Test W-F1 of a logistic regression (C = `strength`) fitted on the training split."""
    fitted, held_out = corpus.conversations("train"), corpus.conversations("test")
    x = inputs(fitted, modalities, context)
    mean, scale = x.mean(0), x.std(0)
    labels, expected = (np.concatenate([c.labels for c in part]) for part in (fitted, held_out))
    model = LogisticRegression(C=strength, max_iter=1000).fit((x - mean) / scale, labels)
    predictions = model.predict((inputs(held_out, modalities, context) - mean) / scale)
    return f1_score(expected, predictions, average="weighted")


def assert_something_to_win(corpus, strength):
    text, audio, visual = (probe(corpus, [m], 0, strength) for m in corpus.card.modalities)
    together = probe(corpus, corpus.card.modalities, 0, strength)
    assert 0.5 < text < 0.7
    assert text > audio + 0.02 > visual + 0.04
    assert together > text + 0.02
    assert probe(corpus, corpus.card.modalities, 3, strength) > together + 0.005


HALF = {
    "synthetic-meld": {"train": Size(500, 4800, 24), "test": Size(280, 2600, 33)},
    "synthetic-iemocap6": {"train": Size(60, 2900, 110), "test": Size(40, 2000, 100)},
    "synthetic-iemocap4": {"train": Size(60, 2100, 110), "test": Size(40, 1400, 100)},
}


@pytest.mark.parametrize("name", HALF)
def test_a_linear_probe_finds_reliabilities_complements_and_context(name):
    assert_something_to_win(generate(name, sizes=HALF[name], widths=NARROW), strength=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", HALF)
def test_a_linear_probe_finds_them_at_full_size(name):
    corpus = generate(name)
    assert corpus.card.widths == REAL[name][2]
    assert_something_to_win(corpus, strength=0.001)
