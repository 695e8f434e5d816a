"""Every mistake on a command line gets one line on stderr and exit status 2, and leaves no trace."""

import dataclasses
import os
import pickle

import numpy as np
import pytest

from jmer.command import exit_status
from jmer.data.convert import convert
from jmer.data.corpus import CARD_FILE, build_corpus, load_saved, save_corpus
from jmer.data.inspect import inspect
from jmer.data.synthetic import Size, generate
from jmer.main import main

MELD = "configs/lfvd_meld.py"
WIDTHS = {"text": 6, "audio": 4, "visual": 5}
SIZES = {"train": Size(5, 20, 6), "validation": Size(2, 8, 6), "test": Size(2, 8, 6)}
ARROW = "train/data-00000-of-00001.arrow"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A folder with a sound corpus and some that have something wrong with them."""
    folder = tmp_path_factory.mktemp("corpora")
    sound = generate("synthetic-meld", sizes=SIZES, widths=WIDTHS)
    splits = {split: sound.conversations(split) for split in sound.splits}

    def save(name, changed, card=sound.card):
        save_corpus(build_corpus(changed, card), folder / name)

    def in_training(change):
        first, *others = splits["train"]
        return splits | {"train": [change(first), *others]}

    def with_infinity(conversation):
        text = conversation.features["text"].copy()
        text[1, 2] = np.inf
        return dataclasses.replace(conversation, features={**conversation.features, "text": text})

    save("sound", splits)
    save("no_validation", {split: splits[split] for split in ("train", "test")})
    save("no_training", {"test": splits["test"]})
    save("infinite", in_training(with_infinity))
    save("strange_label", in_training(lambda c: dataclasses.replace(c, labels=np.full(len(c), 7, np.int32))))
    calm = {
        split: [dataclasses.replace(c, labels=np.minimum(c.labels, 5)) for c in rows] for split, rows in splits.items()
    }
    save("never_angry", calm)
    save("text_only", splits, dataclasses.replace(sound.card, widths={"text": WIDTHS["text"]}))
    return folder


@pytest.fixture
def refusal(tmp_path, monkeypatch, capfd, corpora):
    """Runs a program in an empty folder; returns its one line on stderr, after a look at all else that must hold."""
    repository = os.getcwd()
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "corpora"):
        os.symlink({"configs": f"{repository}/configs", "corpora": corpora}[name], tmp_path / name)

    def run(program, arguments):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        status = exit_status(program, arguments)
        out, err = capfd.readouterr()
        assert (status, out) == (2, ""), err
        assert err.startswith("error: ") and err.endswith("\n") and len(err.splitlines()) == 1, err
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return err

    return run


EXPERIMENTS = {
    "syntax.py": ("def get_config(\n", ["syntax.py, line 1: SyntaxError: '(' was never closed"]),
    "empty.py": ("", ["empty.py: the file has no function get_config"]),
    "misspelt.py": (
        "from jmer.config import base_config\n\ndef get_config():\n    config = base_config('lfvd')\n"
        "    config.training.epoch = 3\n    return config\n",
        ["misspelt.py, line 5: ", "epoch", 'Did you mean "epochs"'],
    ),
    "nothing.py": ("def get_config():\n    return None\n", ["nothing.py: ", "'NoneType' object has no attribute"]),
    "partial.py": (
        "from ml_collections import ConfigDict\n\ndef get_config():\n"
        "    return ConfigDict({'model': {'name': 'lfvd'}})\n",
        ["partial.py: ", "base_config('lfvd')", "attributes.concordance_weight"],
    ),
    "other_model.py": (
        "from jmer.config import base_config\n\ndef get_config():\n    return base_config('lstm')\n",
        ["other_model.py: no model 'lstm', only lfvd"],
    ),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_that_is_none(refusal, tmp_path, name):
    content, expected = EXPERIMENTS[name]
    (tmp_path / name).write_text(content)
    line = refusal(main, ["--config", name])
    assert all(part in line for part in expected), line


FLAGS = {
    "no experiment": ([], ["--mode train needs --config"]),
    "no value": (["--config"], ["argument --config: expected one argument"]),
    "no such file": (
        ["--config", "configs/none.py"],
        ["experiment configs/none.py does not exist: choose one of ", " dagerc_iemocap, "],
    ),
    "a folder": (["--config", "configs"], ["configs is a folder"]),
    "misspelt experiment": (["--config", "lfvd_mled"], ["lfvd_mled is unknown: did you mean lfvd_meld?"]),
    "no such variant": (
        ["--config", f"{MELD}:tinny"],
        [f"{MELD}: no variant 'tinny'", "choose from tiny, plain_features"],
    ),
    "misspelt field": (
        ["--config", MELD, "--config.training.epoch=1"],
        ["'training.epoch'", "did you mean training.epochs?"],
    ),
    "field without section": (["--config", MELD, "--config.batch_size=1"], ["did you mean training.batch_size?"]),
    "foreign field": (
        ["--config", MELD, "--config.lrr=1"],
        [
            "unknown field 'lrr'",
            "attributes, curriculum, data, loss, majority_emotion, model, modulation, optimizer, seed",
        ],
    ),
    "foreign field of a section": (
        ["--config", MELD, "--config.training.zzz=1"],
        ["section training has accumulation_steps, batch_size, buckets, devices, epochs, grace_seconds, init_from, "],
    ),
    "a section": (["--config", MELD, "--config.training=1"], ["section training has accumulation_steps, batch_size"]),
    "fraction": (
        ["--config", MELD, "--config.training.epochs=1.5"],
        ["training.epochs: expected a whole number, got '1.5'"],
    ),
    "word": (
        ["--config", MELD, "--config.training.epochs=abc"],
        ["training.epochs: expected a whole number, got 'abc'"],
    ),
    "not finite": (
        ["--config", MELD, "--config.optimizer.learning_rate=nan"],
        ["learning_rate: expected a number, got 'nan'"],
    ),
    "neither true nor false": (
        ["--config", MELD, "--config.model.causal=x"],
        ["model.causal: expected true or false, got 'x'"],
    ),
    "no text": (["--config", MELD, "--config.seed"], ["--config.seed has no value: write --config.seed=VALUE"]),
    "flag for a text": (["--config", MELD, "--config.seed", "--mode=train"], ["--config.seed has no value"]),
    "another model": (
        ["--config", MELD, "--config.model.name=x"],
        ["model.name cannot be changed", "choose another one"],
    ),
    "derived": (["--config", MELD, "--config.loss.class_weight_values=1"], ["choose a rule with loss.class_weights"]),
    "foreign flag": (["--config", MELD, "--wrokdir=a"], ["unknown argument '--wrokdir=a'", "did you mean --workdir?"]),
    "stray word": (["--config", MELD, "stray"], ["unknown argument 'stray'"]),
    "foreign mode": (["--config", MELD, "--mode=test"], ["'test'", "'train', 'evaluate', 'predict'"]),
    "half a cluster": (["--config", MELD, "--processes=2"], ["need --coordinator, --processes", "--process"]),
    "no address": (
        ["--config", MELD, "--coordinator=here", "--processes=2", "--process=0"],
        ["--coordinator is 'here': give HOST:PORT"],
    ),
    "no port": (
        ["--config", MELD, "--coordinator=a:99999", "--processes=2", "--process=0"],
        ["--coordinator is 'a:99999'"],
    ),
    "process beyond the last": (
        ["--config", MELD, "--corpus=corpora/sound", "--coordinator=127.0.0.1:9", "--processes=2", "--process=7"],
        ["--process is 7, but the 2 processes are numbered from 0"],
    ),
    "evaluate nothing": (["--mode=evaluate"], ["--mode evaluate needs --workdir"]),
    "evaluate before training": (["--mode=evaluate", "--config", MELD], ["runs/lfvd_meld-", "holds no run"]),
    "evaluate an empty folder": (
        ["--mode=evaluate", "--workdir=corpora"],
        ["corpora holds no run: it has no config.json"],
    ),
    "evaluate a file": (["--mode=predict", f"--workdir={MELD}"], [f"{MELD} holds no run"]),
}


@pytest.mark.parametrize("mistake", FLAGS)
def test_flags_and_fields(refusal, mistake):
    arguments, expected = FLAGS[mistake]
    line = refusal(main, arguments)
    assert all(part in line for part in expected), line


CORPORA = {
    "synthetic-mled": ["no corpus 'synthetic-mled'", "jmer.data.convert", "synthetic-meld"],
    "corpora": ["corpora is not a saved corpus: it has no card.json"],
    MELD: [f"no corpus at {MELD}: it is a file", "jmer.data.convert"],
    "corpora/no_validation": ["selection=validation", "corpus 'synthetic-meld' has none", "choose selection=last"],
    "corpora/no_training": ["corpus 'synthetic-meld': no training split, only test"],
    "corpora/infinite": ["text of utterance", "contains NaN or infinity", "jmer.data.inspect"],
    "corpora/strange_label": ["has label 7", "with 7 emotions, expected 0 to 6"],
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_corpora(refusal, corpus):
    line = refusal(main, ["--config", MELD, "--corpus", corpus])
    assert all(part in line for part in CORPORA[corpus]), line


# Field -> value, what else is in the line.
VALUES = [
    ("seed", "-1", ["whole number from 0"]),
    ("selection", "best", ["validation, last, test_oracle"]),
    ("data.normalization", "zscore", ["standard or none"]),
    ("data.clip", "-1", ["0 for no clipping"]),
    ("data.clip", "nan", ["expected a number"]),
    ("data.context", "none", ["mask_unlabelled, drop_unlabelled"]),
    ("model.modalities", "text,touch", ["touch", "text, audio, visual"]),
    ("model.modalities", "text,text", ["each once"]),
    ("model.num_classes", "3", ["has 7: leave it 0"]),
    ("model.dominant", "smell", ["text, audio, visual"]),
    ("model.fusion", "sum", ["cmvd, add, cat, gate"]),
    ("model.fusion_input", "y", ["x, mu, z"]),
    ("model.fusion_input", "z", ["d_z = d_x, not 64 and 300"]),
    ("model.weight_fn", "relu", ["sigmoid"]),
    ("model.weight_kl_reduction", "max", ["sum, mean"]),
    ("model.dag_output", "first", ["concat_proj, last"]),
    ("model.initialization", "zeros", ["torch_uniform"]),
    ("model.qkv_sharing", "all", ["per_block, per_modality"]),
    ("model.cross_residual", "key", ["source, query"]),
    ("model.language_stream", "text", ["encoder, lfa, fused"]),
    ("model.sigma_param", "exp", ["softplus_std"]),
    ("model.num_heads", "7", ["7 does not divide 300"]),
    ("model.num_heads", "0", ["at least 1"]),
    ("model.d_r", "301", ["even"]),
    ("model.d_z", "0", ["at least 1"]),
    ("model.dag_layers", "-1", ["at least 1"]),
    ("model.omega", "0", ["at least 1"]),
    ("model.dropout_rate", "1", ["below 1"]),
    ("model.dropout_rate", "-0.1", ["at least 0"]),
    ("loss.tau", "0", ["above 0"]),
    ("loss.gamma_self", "-1", ["not negative"]),
    ("loss.self_denominator", "some", ["negatives, all"]),
    ("loss.supcon_denominator", "some", ["negatives_plus_self"]),
    ("loss.contrast_scope", "corpus", ["batch, conversation"]),
    ("loss.kl_estimator", "exact", ["analytic, mc"]),
    ("loss.class_weights", "balanced", ["none, inverse_freq, log_inverse_freq"]),
    ("optimizer.name", "adam", ["adam_l2, adamw, sgd"]),
    ("optimizer.schedule", "step", ["constant, linear, cosine, plateau"]),
    ("optimizer.learning_rate", "-1", ["not negative"]),
    ("optimizer.weight_decay", "-1", ["not negative"]),
    ("optimizer.clip_norm", "-1", ["not negative"]),
    ("optimizer.warmup_epochs", "99", ["training.epochs: lower it"]),
    ("training.epochs", "0", ["at least 1"]),
    ("training.batch_size", "-4", ["at least 1"]),
    ("training.buckets", "0", ["at least 1"]),
    ("training.devices", "99", ["0 takes them all"]),
    ("training.parallel", "gpu", ["auto, jit, pmap, shard_map"]),
]


@pytest.mark.parametrize(("field", "value", "expected"), VALUES, ids=[f"{f}={v}" for f, v, _ in VALUES])
def test_values_of_fields(refusal, field, value, expected):
    line = refusal(main, ["--config", MELD, "--corpus=corpora/sound", f"--config.{field}={value}"])
    assert all(part in line for part in [field.rpartition(".")[2].removesuffix("_fn"), *expected]), line


def test_a_corpus_that_does_not_fit_the_configuration(refusal):
    line = refusal(main, ["--config", f"{MELD}:text_audio", "--corpus=corpora/text_only"])
    assert "model.modalities has audio, but corpus 'synthetic-meld' has only text" in line
    weighted = ["--config", MELD, "--config.loss.class_weights=inverse_freq"]
    assert "anger\n" in refusal(main, [*weighted, "--corpus=corpora/never_angry"])


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: b"garbage" * 100,
    "flipped": lambda content: bytes(255 - byte if i % 41 == 20 else byte for i, byte in enumerate(content)),
}


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
@pytest.mark.parametrize("name", [CARD_FILE, ARROW, "train/state.json", "train/dataset_info.json", "dataset_dict.json"])
def test_damaged_corpora(refusal, tmp_path, corpora, name, damage):
    save_corpus(load_saved(corpora / "sound"), tmp_path / "damaged")
    file = tmp_path / "damaged" / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for program, arguments in ((inspect, ["damaged"]), (main, ["--config", MELD, "--corpus=damaged"])):
        line = refusal(program, arguments)
        assert "damaged" in line and "convert" in line, line


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("it_ran",)


COLUMNS = {
    "dialogue": np.repeat(["a", "b", "c", "d"], 3),
    "speaker": np.array(list("ABABABABABAB")),
    "emotion": np.arange(12) % 2,
    "split": np.repeat(["train", "train", "train", "test"], 3),
    "features": np.ones((12, 2), np.float32),
}
TABLE = [
    "table",
    "--conversation=dialogue",
    "--speaker=speaker",
    "--label=emotion",
    "--emotions=calm,angry",
    "--split=split",
    "--text=features",
]


@pytest.fixture
def sources(tmp_path):
    """Files to convert, in the working folder: two sound tables, and all kinds of others."""
    np.savez(tmp_path / "sound.npz", **COLUMNS)
    whole = (tmp_path / "sound.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    rows = [",".join(map(str, row)) for row in zip(*list(COLUMNS.values())[:4], strict=True)]
    (tmp_path / "sound.csv").write_text("\n".join(["dialogue,speaker,emotion,split,f_0", *(f"{r},1" for r in rows)]))
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps((Hostile(),)))
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps((1, 2, 3)))
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps(list(range(1000)))[:500])
    (tmp_path / "train_data_x.json.feature").write_text('[[{"text": "a"')
    (tmp_path / "mapping.yaml").write_text("- text")


SOURCES = {
    "no format": ([], ["required: format"]),
    "foreign format": (["tables", "sound.npz", "corpus"], ["'tables'", "'table', 'pickle', 'dag-json', 'meld-csv'"]),
    "no destination": ([*TABLE, "sound.npz"], ["required: DEST"]),
    "no source": ([*TABLE, "none.npz", "corpus"], ["no file none.npz"]),
    "cut npz": ([*TABLE, "cut.npz", "corpus"], ["cut.npz is truncated"]),
    "pickle for a table": ([*TABLE, "odd.pkl", "corpus"], ["odd.pkl is a pickle: convert it with"]),
    "table for a pickle": (["pickle", "sound.npz", "corpus"], ["sound.npz is a NumPy archive", "format `table`"]),
    "hostile pickle": (["pickle", "hostile.pkl", "corpus"], ["hostile.pkl is refused", "mkdir"]),
    "odd pickle": (["pickle", "odd.pkl", "corpus"], ["odd.pkl contains a tuple of 3", "--help lists layouts"]),
    "cut pickle": (["pickle", "cut.pkl", "corpus"], ["cut.pkl is not a pickle, or is truncated"]),
    "cut JSON": (["dag-json", "train_data_x.json.feature", "corpus"], ["is not a JSON file, or is truncated"]),
    "folder without files": (["meld-csv", "corpora", "corpus", "--features=sound.npz"], ["contains no *_sent_emo.csv"]),
    "missing column": ([*TABLE, "sound.csv", "corpus"], ["sound.csv has no column 'features'", "dialogue, speaker"]),
    "foreign label": ([*TABLE, "--emotions=calm", "sound.npz", "corpus"], ["has label 1 in row 2", "0 calm"]),
    "emotion twice": ([*TABLE, "--emotions=calm,calm", "sound.npz", "corpus"], ["'calm,calm'", "each emotion once"]),
    "foreign split": ([*TABLE, "--split=speaker", "sound.npz", "corpus"], ["has split 'A' in row 1"]),
    "foreign preset": ([*TABLE, "--preset=mled", "sound.npz", "corpus"], ["'mled'", "iemocap6"]),
    "no mapping": ([*TABLE, "--columns=mapping.yaml", "sound.npz", "corpus"], ["mapping.yaml is not a mapping"]),
    "two widths": ([*TABLE, "--text=f", "sound.csv", "sound.npz", "corpus"], ["sound.npz has no column 'f'"]),
    "existing destination": ([*TABLE, "sound.npz", "corpora"], ["corpora already exists"]),
    "destination below a file": ([*TABLE, "sound.npz", "sound.csv/corpus"], ["sound.csv"]),
}


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("mistake", SOURCES)
def test_sources_to_convert(refusal, mistake):
    arguments, expected = SOURCES[mistake]
    line = refusal(convert, arguments)
    assert all(part in line for part in expected), line


def test_corpora_to_inspect(refusal):
    assert "required: corpus" in refusal(inspect, [])
    assert "no corpus 'none'" in refusal(inspect, ["none"])
    assert "unrecognized arguments: more" in refusal(inspect, ["corpora/sound", "more"])
