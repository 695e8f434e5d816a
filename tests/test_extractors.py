"""Features of one extractor are not given to a model that was trained on another's."""

import dataclasses
import json

import pytest

from jmer.data import extractors
from jmer.data.corpus import Card
from jmer.data.extractors import doubts, mismatch
from jmer.json_values import from_json

BERT = {
    "extractor": "bert",
    "revision": 1,
    "layer": "-1",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "width": 384,
    "packages": {"tokenizers": "0.23.3"},
    "licence": "of the checkpoint",
    "given": "bert:models/minilm",
}
CARD = Card("talk", {"text": 384}, ("joy", "anger"), "Extracted.", False, extractors={"text": BERT})


def differing(**fields):
    return mismatch({"text": BERT}, {"text": {**BERT, **fields}}, "text")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"extractor": "hashing"}, "extractor 'bert' there, 'hashing' here"),
        ({"layer": "-2"}, "layer of extractor 'bert': -1 there, -2 here"),
        ({"revision": 2}, "revision of extractor 'bert': 1 there, 2 here"),
        ({"context": 3}, "context of extractor 'bert': None there, 3 here"),
        ({"sha256": "0" * 64}, "sha256 of extractor 'bert': 53aa51172d14... there, 000000000000... here"),
        (
            {"packages": {"tokenizers": "0.24.0"}},
            "package tokenizers of extractor 'bert': 0.23.3 there, 0.24.0 here",
        ),
        ({"packages": {}}, "package tokenizers of extractor 'bert': 0.23.3 there, none here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_extractors_differ_by_a_named_field(fields, line):
    assert differing(**fields) == line


@pytest.mark.parametrize(
    "fields",
    [{}, {"given": "bert:/elsewhere"}, {"licence": "other words"}, {"packages": {"tokenizers": "0.23.9"}}],
    ids=["nothing", "place", "licence", "patch version"],
)
def test_the_place_the_licence_and_a_patch_version_may_differ(fields):
    assert differing(**fields) == ""


def test_features_of_unknown_origin_are_no_mismatch_but_a_doubt():
    known, unknown = {"text": BERT}, {}
    assert mismatch(known, unknown, "text") == mismatch(unknown, known, "text") == ""
    assert "the card of the corpus does not say" in doubts(known, unknown, "text")[0]
    assert "the card of the training corpus does not say" in doubts(unknown, known, "text")[0]
    assert doubts(unknown, unknown, "text") == doubts(known, known, "text") == []


def test_a_patch_version_is_a_doubt():
    other = {"text": {**BERT, "packages": {"tokenizers": "0.23.9"}}}
    assert doubts({"text": BERT}, other, "text") == [
        "text: package tokenizers of extractor 'bert' is 0.23.3 there, 0.23.9 here"
    ]


def test_a_card_keeps_its_extractors():
    fields = json.loads(json.dumps(dataclasses.asdict(CARD)))
    assert from_json(Card, fields) == CARD
    del fields["extractors"]
    assert from_json(Card, fields) == dataclasses.replace(CARD, extractors={})


@pytest.mark.parametrize(
    "found",
    [
        [],
        "bert",
        {"text": "bert"},
        {"text": {}},
        {"text": {"extractor": 3}},
        {"text": {**BERT, "packages": []}},
        {"text": {"extractor": "bert"}},
    ],
    ids=["list", "string", "identity", "empty", "name", "packages", "how it was given"],
)
def test_anything_else_is_no_mapping_of_extractors(found):
    with pytest.raises(ValueError, match="extractors"):
        extractors.check_identities(found)
