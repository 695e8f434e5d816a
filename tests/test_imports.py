"""One layer costs one layer: imports point one way, and the ground floor needs jax, flax and numpy alone."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jmer

ROOT = Path(__file__).parent.parent / "jmer"
GROUND = {
    *("batch", "digests", "errors", "file_kinds", "files", "guard", "json_values", "modalities"),
    *("precision", "segments", "selection", "text", "text_width", "warning"),
}
MAY_IMPORT = {
    "layers": {"layers", "segments", "checks"},
    "losses": {"losses", "layers", "segments", "checks"},
    "models": {"models", "layers", "losses", "segments", "batch", "errors", "modalities"},
    "data": {
        *("data", "batch", "command", "digests", "errors", "file_kinds", "files", "guard", "json_values"),
        *("modalities", "text", "warning"),
    },
    "extract": {
        *("extract", "data", "layers"),
        *("batch", "checks", "command", "digests", "docstrings", "errors", "file_kinds", "files", "guard"),
        *("modalities", "precision", "text", "warning"),
    },
    "evaluation": GROUND | {"evaluation", "models", "data"},
    "training": GROUND | {"training", "evaluation", "models", "data", "config", "pipeline"},
    "runs": GROUND | {"runs", "training", "extract", "evaluation", "models", "data", "config", "pipeline"},
}


def imported(path):
    """Yields the rooms of jmer that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name and name.startswith("jmer."):
                yield name.split(".")[1]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    modules = list((ROOT / room).rglob("*.py"))
    assert modules
    for path in modules:
        assert set(imported(path)) <= MAY_IMPORT[room], path


def test_type_checkers_see_what_is_imported_lazily():
    (block,) = (node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == jmer._NAMES | {name: "jmer" for name in set(jmer.__all__) - jmer._NAMES.keys()}


def test_layers_and_losses_pull_in_nothing_heavy():
    """What `flax.linen` imports by itself is not ours to judge."""
    heavy = "{'datasets', 'pandas', 'clu', 'ml_collections', 'matplotlib', 'pyarrow', 'jmer.data', 'jmer.batch'}"
    code = f"import sys, jmer.layers, jmer.losses; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_decodes_recordings_pulls_in_nothing_heavy():
    """Processes that decode recordings start soon and are small."""
    heavy = "{'jax', 'datasets', 'pandas', 'pyarrow', 'jmer.data', 'torch', 'onnxruntime', 'cv2', 'av'}"
    code = (
        "import sys, jmer.extract.recordings; from jmer.extract.registry import CLASSES, extractor_class\n"
        f"[extractor_class(name) for name in CLASSES]; print(sorted({heavy} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_data_room_initialises_no_backend(tmp_path):
    """Every module of the room is imported; a corpus is converted, inspected, probed, normalised and batched."""
    program = """
import importlib, pkgutil, sys
import numpy as np
from jax._src import xla_bridge
import jmer.data
for module in pkgutil.walk_packages(jmer.data.__path__, "jmer.data."):
    importlib.import_module(module.name)
from jmer.data import batches, load_corpus, normalization, probe
from jmer.data.convert import convert
from jmer.data.inspect import describe
np.savez(
    "table.npz", d=["a", "a", "b", "c"], s=["x"] * 4, e=[0, 1, 1, 0], p=["train"] * 3 + ["test"],
    f=np.arange(8.0).reshape(4, 2),
)
flags = ["--conversation=d", "--speaker=s", "--label=e", "--split=p", "--text=f", "--emotions=calm,angry"]
convert(["table", *flags, "table.npz", "corpus"])
corpus = load_corpus("corpus")
describe(corpus), probe(corpus)
train = corpus.conversations("train")
statistics = normalization.fit(train, corpus.card.widths)
assert list(batches(normalization.apply(train, statistics), corpus.card.widths, batch_size=1))
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT.parent)}
    )
