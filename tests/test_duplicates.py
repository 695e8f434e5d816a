"""Copies of training conversations and utterances are found, however they were rounded; stock phrases are none."""

import dataclasses

import numpy as np
import pytest

from jmer.data import make_conversation, make_corpus, probe

EMOTIONS = ("happy", "sad")


def conversation(rng, name, length=8, modalities=("text", "audio"), sentences=None, speakers=None):
    return make_conversation(
        {m: rng.normal(size=(length, 16)) for m in modalities},
        labels=rng.integers(0, 2, length),
        id=name,
        speakers=speakers or ["AB"[i % 2] for i in range(length)],
        sentences=sentences,
    )


def corpus(validation=(), seed=0, **options):
    """Sixty training conversations, six other ones, and what `validation` makes of the training conversations."""
    rng = np.random.default_rng(seed)
    training = [conversation(rng, f"t{i}", **options) for i in range(60)]
    others = [conversation(rng, f"v{i}", **options) for i in range(6)]
    extra = [dataclasses.replace(make(training), id=f"copy{i}") for i, make in enumerate(validation)]
    return make_corpus({"train": training, "validation": others + extra}, emotions=EMOTIONS)


def found(made, check="duplicates", subject="validation"):
    return [f for f in probe(made) if (f.check, f.subject) == (check, subject)]


def changed(c, change, modalities=("text", "audio")):
    return dataclasses.replace(c, features={m: change(x) if m in modalities else x for m, x in c.features.items()})


def part(c, own):
    return make_conversation(
        {m: x[own] for m, x in c.features.items()}, labels=c.labels[own], id=c.id, speakers=c.speakers[own]
    )


def lacking(c, modality, every):
    there = np.arange(len(c)) % every > 0
    return dataclasses.replace(
        changed(c, lambda x: np.where(there[:, None], x, 0), (modality,)), available=c.available | {modality: there}
    )


COPIES = {
    "exact": lambda training: training[3],
    "rounded": lambda training: changed(training[3], lambda x: x.astype(np.float16).astype(np.float32)),
    "re-encoded": lambda training: changed(training[3], lambda x: x * np.float32(1.01)),
    "part": lambda training: part(training[3], slice(0, 5)),
    "short": lambda training: part(training[3], slice(0, 3)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copied_conversation_is_a_warning(kind):
    features, _, utterances = found(corpus([COPIES[kind]]))
    assert features.verdict == "warning"
    assert features.measured == "1 of 7 conversations have mostly the same features as one of train ('copy0')"
    assert utterances.verdict == "fine"


def test_a_copy_lacks_what_the_original_lacks():
    made = corpus([lambda training: training[3]])
    splits = {s: [lacking(c, "audio", 2) for c in made.conversations(s)] for s in made.splits}
    assert found(make_corpus(splits, emotions=EMOTIONS))[0].verdict == "warning"
    splits["train"] = made.conversations("train")
    splits["validation"] = [lacking(c, "audio", 1) for c in made.conversations("validation")]
    assert [f.verdict for f in found(make_corpus(splits, emotions=EMOTIONS))] == ["fine", "note", "fine"]


def test_the_same_words_in_another_recording_are_a_note():
    rng = np.random.default_rng(9)

    def recorded_again(training):
        return changed(training[3], lambda x: rng.normal(size=x.shape).astype(np.float32), ("audio",))

    features, words, utterances = found(corpus([recorded_again]))
    assert (features.verdict, words.verdict, utterances.verdict) == ("fine", "note", "fine")
    assert "('copy0')" in words.measured


def test_the_same_sentences_with_other_features_are_a_note():
    sentences = [f"this is what person number {i} said" for i in range(8)]
    rng = np.random.default_rng(5)
    training = [conversation(rng, f"t{i}", sentences=sentences if i == 3 else None) for i in range(20)]
    other = conversation(rng, "v", sentences=[s.upper() + "!" for s in sentences])
    made = make_corpus({"train": training, "validation": [other]}, emotions=EMOTIONS)
    assert [f.verdict for f in found(made)] == ["fine", "note", "fine"]


def test_utterances_that_were_copied_one_by_one_are_a_warning():
    def scattered(training):
        rows = [(training[i], i % 8) for i in range(8)]
        return make_conversation(
            {m: np.stack([c.features[m][k] for c, k in rows]) for m in ("text", "audio")}, labels=[0] * 8
        )

    features, _, utterances = found(corpus([scattered] * 2))
    assert features.verdict == "fine" and utterances.verdict == "warning"
    assert utterances.measured.startswith("16 of 64 other utterances")


def test_a_test_conversation_that_is_in_validation_is_a_warning():
    made = corpus()
    splits = {s: made.conversations(s) for s in made.splits}
    splits["test"] = [
        dataclasses.replace(splits["validation"][0], id="copy"),
        conversation(np.random.default_rng(7), "x"),
    ]
    copied = [f for f in found(make_corpus(splits, emotions=EMOTIONS), subject="test") if f.verdict != "fine"]
    (finding,) = copied
    assert finding.measured.startswith("1 of 2 conversations have mostly the same features as one of validation")
    assert finding.meaning == "the epoch is chosen on them: remove them"


def test_copies_inside_training_are_counted_and_do_not_raise_its_scores():
    """Every training conversation is there twice, with labels that nothing predicts and features to learn by heart."""
    rng = np.random.default_rng(0)
    once = [
        make_conversation({"text": rng.normal(size=(8, 300))}, labels=rng.integers(0, 2, 8), id=f"t{i}")
        for i in range(40)
    ]
    again = [dataclasses.replace(c, id=f"{c.id}+") for c in once]
    oversampled = make_corpus({"train": once + again}, emotions=EMOTIONS)
    (finding,) = found(oversampled, subject="train")
    assert (finding.verdict, finding.measured) == ("note", "40 of 80 conversations are exact copies of others in train")
    (inside,) = found(oversampled, "linear probe", "text, train")
    assert 35 < float(inside.measured.split()[1]) < 65


def test_stock_phrases_are_no_copies():
    """Half of all utterances are one of six, as short answers are; text is the only modality."""
    rng = np.random.default_rng(0)
    phrases = rng.normal(size=(6, 16)).astype(np.float32)

    def chatty(name):
        c = conversation(rng, name, modalities=("text",))
        stock = rng.random(len(c)) < 0.5
        return changed(c, lambda x: np.where(stock[:, None], phrases[rng.integers(0, 6, len(x))], x))

    splits = {"train": [chatty(f"t{i}") for i in range(40)], "validation": [chatty(f"v{i}") for i in range(15)]}
    features, utterances = found(make_corpus(splits, emotions=EMOTIONS))
    assert features.verdict == utterances.verdict == "fine"
    assert not utterances.measured.startswith("0 of")


def test_unavailable_and_constant_features_match_nothing():
    def blank(c):
        gone = {m: np.zeros(len(c), bool) for m in c.features}
        return dataclasses.replace(changed(c, np.zeros_like), available=gone)

    made = corpus()
    splits = {s: [blank(c) for c in made.conversations(s)] for s in made.splits}
    same = {s: [changed(c, np.ones_like) for c in made.conversations(s)] for s in made.splits}
    for chosen in (splits, same):
        assert {f.verdict for f in found(make_corpus(chosen, emotions=EMOTIONS))} == {"fine"}


def test_speakers_in_common():
    def names(train, validation, ids="c{}"):
        rng = np.random.default_rng(0)
        made = {
            split: [
                conversation(rng, ids.format(f"{split}{i}"), speakers=[own[i % len(own)][k % 2] for k in range(8)])
                for i in range(6)
            ]
            for split, own in (("train", train), ("validation", validation))
        }
        (finding,) = found(make_corpus(made, emotions=EMOTIONS), "speakers")
        return finding.verdict, finding.measured

    assert names([("Ann", "Bob"), ("Cem", "Dee")], [("Eve", "Flo"), ("Ann", "Gil")]) == (
        "note",
        "1 of 4 speakers are in train, with 25.0 % of the utterances",
    )
    assert names([("Ann", "Bob"), ("Cem", "Dee")], [("Eve", "Flo")])[0] == "fine"
    for roles in (("A", "B"), ("Speaker 1", "Speaker 2"), ("agent", "customer"), ("Moderator", "guest")):
        assert names([roles], [roles])[1].startswith("not known")
    assert names([("M", "F")], [("M", "F")], "Ses01F_{}") == (
        "note",
        "2 of 2 speakers are in train, with 100.0 % of the utterances",
    )


def test_labels_of_another_distribution():
    def labelled(shares, new=()):
        rng = np.random.default_rng(0)
        made = {
            split: [
                dataclasses.replace(
                    conversation(rng, f"{split}{i}"), labels=rng.choice(len(p), 8, p=p).astype(np.int32)
                )
                for i in range(20)
            ]
            for split, p in zip(("train", "validation"), shares, strict=True)
        }
        (finding,) = found(make_corpus(made, emotions=(*EMOTIONS, "angry")), "labels")
        return finding

    assert labelled([(0.5, 0.5), (0.5, 0.5)]).verdict == "fine"
    shifted = labelled([(0.8, 0.2), (0.3, 0.7)])
    assert (shifted.verdict == "note" and "most happy" in shifted.measured) or "most sad" in shifted.measured
    new = labelled([(0.5, 0.5), (0.4, 0.4, 0.2)])
    assert (new.verdict, new.measured) == ("warning", "not in train: angry")
