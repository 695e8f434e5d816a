"""The examples of the documentation run, and the files that it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page):
    examples = blocks(page.read_text(), "python")
    assert examples
    exec(compile("\n".join(examples), page.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_a_page_names_exist(page):
    named = set(re.findall(r"\b(?:configs|docs|experiments|jmer|tests)/[\w/]+(?:\.\w+)?", page.read_text()))
    assert {name for name in named if not (ROOT / name).exists()} == set()
