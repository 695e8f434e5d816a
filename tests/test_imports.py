"""One layer costs one layer: imports point one way, and the ground floor needs jax, flax and numpy alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "jmer"
MAY_IMPORT = {
    "layers": {"layers", "segments"},
    "losses": {"losses", "layers"},
    "models": {"models", "layers", "losses", "segments", "batch", "errors"},
    "data": {"data", "batch", "command", "errors", "files"},
    "evaluation": {"evaluation", "models", "data", "batch", "errors", "files"},
    "training": {"training", "evaluation", "models", "data", "batch", "config", "errors", "files"},
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
    modules = list((ROOT / room).glob("*.py"))
    assert modules
    for path in modules:
        assert set(imported(path)) <= MAY_IMPORT[room], path


def test_layers_and_losses_pull_in_nothing_heavy():
    """What `flax.linen` imports by itself is not ours to judge."""
    heavy = "{'datasets', 'pandas', 'clu', 'ml_collections', 'matplotlib', 'pyarrow', 'jmer.data', 'jmer.batch'}"
    code = f"import sys, jmer.layers, jmer.losses; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
