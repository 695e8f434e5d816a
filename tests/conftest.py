"""Strict settings for every test: eight fake devices, no silent broadcasting of ranks, nothing from the network."""

import importlib.metadata
import os
from pathlib import Path

# XLA sizes its CPU pool from NPROC; with fewer threads than concurrent collectives, eight fake devices deadlock.
os.environ["NPROC"] = "32"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"
# XLA's older code generator compiles in half the time of the newer one, the only one of later versions.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Compiled programs outlive the run, here and in the processes that tests start.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Compiling is most of the time: without most optimizations it takes less than half. 0 turns them on.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(Path(__file__).parent.parent / ".pytest_cache" / "hypothesis")

import dataclasses
import gc
import itertools

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_platforms", "cpu")

# The same examples in every run, or with `--slow` many, others in each, of which failures are kept and tried again.
ANY_TIME = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}
hypothesis.settings.register_profile("fast", max_examples=40, derandomize=True, database=None, **ANY_TIME)
hypothesis.settings.register_profile("slow", max_examples=1_000, print_blob=True, **ANY_TIME)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config):
    # Another process may be writing the program that this one reads; it is then compiled again.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache")
    hypothesis.settings.load_profile("slow" if config.getoption("--slow") else "fast")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="slow: run with --slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


# Linux allows a process 65,530 of them by default.
MANY_MAPPINGS = 20_000


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file():
    """Forgets compiled programs after a file, if they are many: they take mappings of memory, and JAX dies without."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and len(mappings.read_bytes().splitlines()) > MANY_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def programs_for_the_cpu_alone(request):
    """Traces the CPU's choice of programs alone, since tracing the others takes as long again.

    A file with `EVERY_PLATFORM = True` traces all, as programs outside of tests do.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "EVERY_PLATFORM", False):
            patch.setattr(jax.lax, "platform_dependent", lambda *arguments, cpu, default: cpu(*arguments))
        yield


@pytest.fixture
def key():
    """Fresh random keys on demand: `key()` never repeats within a test."""
    counter = itertools.count()
    return lambda: jax.random.fold_in(jax.random.key(0), next(counter))


@pytest.fixture
def accelerator_programs(monkeypatch):
    """Returns what makes functions that are traced from then on take their accelerators' programs, on a CPU."""

    def take(platform="default"):
        def chosen(*arguments, **programs):
            return programs.get(platform, programs["default"])(*arguments)

        monkeypatch.setattr(jax.lax, "platform_dependent", chosen)

    return take


@pytest.fixture
def flushed(monkeypatch):
    """Records what is flushed to the disk, as paths in the order of time, and which path each renamed one has then."""
    original, records = (os.fsync, os.replace), []

    def fsync(descriptor):
        records.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        original[0](descriptor)

    def replace(source, target):
        records.append((Path(source), Path(target)))
        original[1](source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return records


@pytest.fixture(scope="module")
def no_figures():
    """Draws no figures of reports, which would take longer than training the smallest model."""
    from jmer.evaluation import report

    with pytest.MonkeyPatch.context() as patch:
        for plot in ("plot_confusion", "plot_learning_curves"):
            patch.setattr(report, plot, lambda *_, **__: None)
        yield


@pytest.fixture
def smallest_model(no_figures):
    """Registers the model of `linear_experiment.py`."""
    import jmer

    jmer.get_config(Path(__file__).parent / "linear_experiment.py")


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Paths of a corpus with all modalities and of one with text alone."""
    from tiny import tiny_corpus

    from jmer.data import make_corpus
    from jmer.data.corpus import save_corpus

    folder, made = tmp_path_factory.mktemp("corpora"), tiny_corpus()
    save_corpus(made, folder / "talks")

    def text_only(conversation):
        only = {name: {"text": getattr(conversation, name)["text"]} for name in ("features", "available")}
        return dataclasses.replace(conversation, **only)

    card = dataclasses.replace(made.card, widths={"text": 6}, name="letters")
    splits = {split: list(map(text_only, made.conversations(split))) for split in made.splits}
    save_corpus(make_corpus(splits, card), folder / "letters")
    return str(folder / "talks"), str(folder / "letters")


@pytest.fixture
def told(capfd):
    """Runs a program; returns its exit status, its lines on stdout and its lines on stderr."""
    from experiments.grid.cli import launch

    def tell(program, *arguments):
        capfd.readouterr()
        status = launch(program.PROGRAM, program.main, list(map(str, arguments)))
        out, err = capfd.readouterr()
        return status, out.splitlines(), err.splitlines()

    return tell
