"""The wheel has all that an installed jmer needs, and works from any folder."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parent.parent


def packages():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return settings["options"]["packages"].split()


def test_every_package_is_listed():
    assert packages() == sorted([*find_packages(ROOT, include=["jmer", "jmer.*"]), "jmer.configs"])


def python(*arguments, **options):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's content, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("jmer", "configs"):
        shutil.copytree(ROOT / name, folder / "sources" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "sources")
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    python("-c", build, cwd=folder / "sources")
    (wheel,) = folder.glob("jmer-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_all_files_of_the_sources(installed):
    sources = {path.relative_to(ROOT) for path in (ROOT / "jmer").rglob("*") if path.is_file()}
    sources = {path for path in sources if "__pycache__" not in path.parts}
    sources |= {Path("jmer") / path.relative_to(ROOT) for path in (ROOT / "configs").glob("*.py")}
    found = {path.relative_to(installed) for path in (installed / "jmer").rglob("*") if path.is_file()}
    assert found == sources
    assert Path("jmer/py.typed") in found and Path("jmer/configs/lfvd_meld.py") in found
    assert any(path.parent == Path("jmer/evaluation/templates") for path in found)


def test_an_installed_experiment_works_from_any_folder(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    lines = python("-m", "jmer.main", "--help", "--config", "lfvd_meld:tiny", cwd=tmp_path, env=environment)
    assert "training.epochs=2" in lines
    where = "import jmer.configs, pathlib; print(pathlib.Path(jmer.configs.__file__).parent)"
    assert Path(python("-c", where, cwd=tmp_path, env=environment).strip()) == installed / "jmer" / "configs"
