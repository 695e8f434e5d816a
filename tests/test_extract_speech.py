"""Features of speech networks from folders of random ones, against the networks called directly."""

import json
import shutil
import sys

import numpy as np
import pytest

from jmer.errors import UserError
from jmer.extract.registry import make_extractor
from jmer.extract.speech import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

SIZE, BLOCKS = 16, 3
TINY = {
    "hidden_size": SIZE,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SOUND = np.random.default_rng(0).normal(size=6000).astype(np.float32) / 10 + 0.02


def speech(folder, **options):
    return make_extractor(
        ",".join([f"speech:{folder}", *(f"{name}={value}" for name, value in options.items())]), "audio"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes a folder with a random network of a family."""
    made = {}

    def make(family="wav2vec2"):
        if family not in made:
            made[family] = path = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            network = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **TINY))
            save(network, path)
        return made[family]

    return make


def save(network, path, **reader):
    network.save_pretrained(path)
    transformers.Wav2Vec2FeatureExtractor(**reader).save_pretrained(path)


@pytest.fixture
def copy(folder, tmp_path):
    """A folder of the test's own."""
    return shutil.copytree(folder(), tmp_path / "net")


def hidden_states(folder, sound=SOUND, *, normalise=True):
    """Returns the layers `[T, D]` of a network that is called directly."""
    family = json.loads((folder / "config.json").read_text())["model_type"]
    names = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel", "wavlm": "WavLMModel"}
    network = getattr(transformers, names.get(family, "AutoModel")).from_pretrained(folder).eval()
    samples = np.float64(sound)
    if normalise:
        samples = (samples - samples.mean()) / samples.std()
    with torch.no_grad():
        states = network(torch.tensor(samples[None], dtype=torch.float32), output_hidden_states=True).hidden_states
    return [state[0].numpy() for state in states]


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_and_their_mean(folder, family):
    path = folder(family)
    frames, mean = speech(path, pooling="none"), speech(path)
    expected = hidden_states(path)[-1]
    np.testing.assert_allclose(frames(SOUND), expected, atol=2e-5)
    np.testing.assert_allclose(mean(SOUND), expected.mean(0), atol=2e-5)
    assert expected.shape == (18, SIZE)
    assert (mean.width, mean.frames, frames.width, frames.frames) == (SIZE, False, SIZE, True)
    assert mean(SOUND).dtype == frames(SOUND).dtype == np.float32


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("0", lambda states: states[0]),
        ("2", lambda states: states[2]),
        ("1+-1", lambda states: np.concatenate([states[1], states[3]], -1)),
        ("mean:2", lambda states: (states[2] + states[3]) / 2),
    ],
    ids=["first", "one", "beside", "mean"],
)
def test_layers_are_chosen(folder, layer, expected):
    made = speech(folder(), layer=layer, pooling="none")
    frames = expected(hidden_states(folder()))
    np.testing.assert_allclose(made(SOUND), frames, atol=2e-5)
    assert made.width == frames.shape[-1]


def test_the_folder_says_whether_samples_are_normalised(folder, tmp_path):
    network = transformers.AutoModel.from_pretrained(folder())
    save(network, tmp_path, do_normalize=False)
    expected = hidden_states(tmp_path, normalise=False)[-1]
    np.testing.assert_allclose(speech(tmp_path, pooling="none")(SOUND), expected, atol=2e-5)


def test_nothing_is_kept_between_utterances_and_nothing_is_padded(folder):
    made, alone = speech(folder()), speech(folder())(SOUND[:1000])
    made(SOUND)
    np.testing.assert_array_equal(made(SOUND[:1000]), alone)


def test_features_do_not_depend_on_the_number_of_cores(folder):
    """So that as many recordings at once as one likes give the same corpus."""
    threads = torch.get_num_threads()
    made = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            made.append(speech(folder(), layer="mean:2", pooling="none")(SOUND))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_the_shortest_sound_has_a_frame(folder):
    made = speech(folder(), pooling="none")
    assert made(SOUND[: round(made.shortest * 16000)]).shape == (1, SIZE)


def test_a_head_is_left_out(folder, tmp_path, capfd):
    network = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**TINY, vocab_size=9)).eval()
    save(network, tmp_path)
    capfd.readouterr()
    made = speech(tmp_path, pooling="none")
    made.check()
    assert capfd.readouterr() == ("", "")
    np.testing.assert_allclose(made(SOUND), hidden_states(tmp_path)[-1], atol=2e-5)


def test_weights_in_half_precision_are_computed_with_in_single(folder, tmp_path):
    save(transformers.AutoModel.from_pretrained(folder()).half(), tmp_path)
    made = speech(tmp_path, pooling="none")(SOUND)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, hidden_states(folder())[-1], atol=0.02)


def test_weights_in_several_files_and_in_the_old_format_are_read(folder, tmp_path):
    network = transformers.AutoModel.from_pretrained(folder())
    several, old = tmp_path / "several", tmp_path / "old"
    network.save_pretrained(several, max_shard_size="20KB")
    network.config.save_pretrained(old)
    torch.save(network.state_dict(), old / "pytorch_model.bin")
    for path in (several, old):
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(path)
        np.testing.assert_array_equal(speech(path)(SOUND), speech(folder())(SOUND))
    names = [path.name for path in speech(several).files]
    assert names[:2] == ["config.json", "preprocessor_config.json"]
    assert "model.safetensors.index.json" in names
    assert len(names) > 4


def test_the_identity_holds_the_network_and_the_layers(folder, copy):
    identity = speech(folder()).identity
    assert identity == speech(copy, layer=BLOCKS).identity
    assert identity["layer"] == "3"
    assert set(identity["packages"]) == {"torch", "transformers"}
    tensors = safetensors.load_file(copy / "model.safetensors")
    tensors["encoder.layer_norm.bias"] += 1
    safetensors.save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    assert speech(copy).identity["sha256"] != identity["sha256"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facebook/wav2vec2-base", r"facebook/wav2vec2-base does not exist \(nothing is downloaded\): name a folder"),
        ("net/config.json", "net/config.json is a file: name a folder"),
    ],
    ids=["hub", "file"],
)
def test_what_is_no_folder_gets_one_line(copy, monkeypatch, name, message):
    monkeypatch.chdir(copy.parent)
    with pytest.raises(UserError, match=message):
        speech(name).check()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_gets_one_line(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"net has no {name}: copy it from where the network comes from"):
        speech(copy).check()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json is damaged .*: get the file again"),
        ("config.json", "[]", "config.json: model_type is None: only wav2vec2, hubert, wavlm"),
        ("config.json", '{"model_type": "whisper"}', "config.json: model_type is 'whisper': only wav2vec2"),
        (
            "config.json",
            '{"model_type": "hubert"}',
            "config.json: num_hidden_layers is missing: expected a whole number",
        ),
        (
            "config.json",
            '{"model_type": "hubert", "num_hidden_layers": 3, "hidden_size": "16"}',
            "config.json: hidden_size is '16': expected a whole number",
        ),
        ("preprocessor_config.json", "{", "net cannot be loaded by transformers: [^\n]*$"),
        ("preprocessor_config.json", "", "preprocessor_config.json is empty: get the file again"),
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, .*git lfs pull"),
        ("model.safetensors", "\1" * 99, "net cannot be loaded by transformers: [^\n]*$"),
    ],
    ids=[
        "damaged-config",
        "other-json",
        "other-family",
        "no-layers",
        "no-size",
        "damaged-settings",
        "empty-settings",
        "pointer",
        "damaged-weights",
    ],
)
def test_a_wrong_file_gets_one_line(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(UserError, match=message):
        speech(copy).check()


def test_weights_of_another_network_get_one_line(copy):
    tensors = safetensors.load_file(copy / "model.safetensors")
    del tensors["encoder.layers.1.attention.k_proj.weight"]
    tensors["encoder.layers.2.attention.k_proj.weight"] = torch.zeros(8, 8)
    del tensors["masked_spec_embed"]
    safetensors.save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    message = (
        "config.json expects 2 tensors that model.safetensors lacks or has in another shape, the first "
        "encoder.layers.1.attention.k_proj.weight: get both files of one network"
    )
    with pytest.raises(UserError, match=message):
        speech(copy).check()


def test_a_network_for_another_rate_gets_one_line(copy):
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(copy)
    with pytest.raises(UserError, match=r"is of a network for 8000 samples per second: expected 16000"):
        speech(copy).check()


def test_a_layer_that_is_not_there_gets_one_line(folder):
    with pytest.raises(UserError, match=r"layer 4 of .* does not exist: it has layers 0 to 3, or -4 to -1"):
        speech(folder(), layer="1+4").check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "last"}, "layer is 'last': expected a number"),
        ({"pooling": "max"}, "pooling is 'max': expected mean"),
    ],
    ids=["layer", "pooling"],
)
def test_a_wrong_option_gets_one_line(options, message):
    with pytest.raises(UserError, match=message):
        speech("net", **options)


@pytest.mark.parametrize("module", ["torch", "transformers"])
def test_a_missing_package_gets_one_line(monkeypatch, folder, module):
    made = speech(folder())
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"the package {module} is needed .*: pip install 'jmer\[speech\]'"):
        made.check()
