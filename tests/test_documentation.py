"""The examples of the documentation run, and the files that it names exist."""

import functools
import re
from pathlib import Path

import pytest

import jmer
from jmer.data import load
from jmer.data.synthetic import Size, generate
from jmer.field_docs import field_docs
from jmer.models import build_model, check_model

ROOT = Path(__file__).parent.parent
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*RUN, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "experiments").rglob("*.md"))]
PAGES += sorted((ROOT / "examples").rglob("*.md"))

# Built-in corpora are smaller here.
SIZES = {"train": Size(16, 160, 20), "validation": Size(4, 40, 20), "test": Size(4, 40, 20)}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where its runs go
    monkeypatch.setattr(load, "generate", functools.partial(generate, sizes=SIZES))
    examples = blocks(page.read_text(), "python")
    assert examples
    exec(compile("\n".join(examples), page.name, "exec"), {"__name__": "__main__"})


def test_the_model_of_ones_own_is_a_whole_file(tmp_path):
    (text,) = (block for block in blocks((ROOT / "README.md").read_text(), "python") if "register_model" in block)
    # The page has registered its model in this process.
    (tmp_path / "mine.py").write_text(text.replace('"perceptron"', '"in_a_file"'))
    config = jmer.get_config(f"{tmp_path / 'mine.py'}:small", {"model.modalities": ("text",), "model.num_classes": 3})
    assert config.model.width == 16
    check_model(build_model(config), (("text", 5),), frames=False)
    assert set(field_docs("in_a_file")) >= {"model.width", "model.dropout_rate", "loss.weight"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_exist(page):
    named = set(re.findall(r"\b(?:configs|docs|experiments|jmer|tests)/[\w/*]+(?:\.\w+)?", page.read_text()))
    assert {name for name in named if not any(ROOT.glob(name))} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_programs_that_a_page_names_exist(page):
    named = set(re.findall(r"python -m ((?:experiments|jmer)(?:\.\w+)*)", page.read_text()))
    paths = {name: ROOT / name.replace(".", "/") for name in named}
    found = {
        name for name, path in paths.items() if (path / "__main__.py").exists() or path.with_suffix(".py").exists()
    }
    assert named == found


def test_every_study_has_a_page():
    studies = {path.parent for path in (ROOT / "experiments").glob("*/__main__.py")}
    assert studies and {study for study in studies if not (study / "README.md").exists()} == set()
