"""The command line: `python -m jmer.main --config configs/lfvd_meld.py`."""

import hashlib
import os
import shlex
import sys
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from jmer.errors import UserError

MODES = ("train", "evaluate", "predict")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment; --config.section.field=value changes a field."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder (default: runs/ and a name made from the configuration)."
)
_MODE = flags.DEFINE_enum(
    "mode", "train", MODES, "train (and evaluate), evaluate a trained run, or predict without scoring."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0 if several processes train together ('auto' on a known cluster)."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")


def main(arguments: list[str]) -> int:
    """Runs what the flags say and returns the exit status: 0, or 128 + signal after an interruption."""
    if len(arguments) > 1:
        raise UserError(f"'{arguments[1]}' is no flag: every argument starts with --")
    if _CONFIG.value is None:
        raise UserError("no experiment: give --config, e.g. --config configs/lfvd_meld.py")
    _start_backend()
    # Only now, since these initialise JAX's backend.
    from jmer.data.registry import load_corpus
    from jmer.training.loop import Interrupted, train
    from jmer.training.parallel import is_lead
    from jmer.training.results import evaluate

    say = _say if is_lead() else lambda line: None
    config: ConfigDict = _CONFIG.value
    workdir = Path(_WORKDIR.value or _default_workdir(config))
    corpus = load_corpus(config.data.path)
    if _MODE.value != "train":
        evaluate(workdir, corpus, say=say, labelled=_MODE.value == "evaluate")
        return 0
    command = shlex.join(["python", "-m", "jmer.main", *sys.argv[1:]])
    try:
        trained = train(config, corpus, workdir, command=command, say=say)
    except Interrupted as stop:
        say(f"{stop}; the same command goes on: {command}")
        return 128 + stop.number
    report = workdir / "report.md"
    if not trained and report.exists():
        say(f"this run is finished; its report, {report}:\n\n{report.read_text()}")
    else:
        evaluate(workdir, corpus, say=say)
    return 0


def _start_backend() -> None:
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jmer"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if _COORDINATOR.value == "auto":
        jax.distributed.initialize()
    elif _COORDINATOR.value:
        if _PROCESSES.value is None or _PROCESS.value is None:
            raise UserError("--coordinator needs --processes (how many) and --process (which one this is)")
        jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)


def _default_workdir(config: ConfigDict) -> str:
    """Names a folder after the experiment, so that the same command finds its run and another makes its own."""
    values = config.to_json_best_effort(sort_keys=True)
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]).stem
    return f"runs/{name}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"


def _say(line: str) -> None:
    print(line, flush=True)


def _parse(arguments: list[str]) -> list[str]:
    """Parses flags; whatever is wrong with a flag, a field or an experiment's file becomes a UserError."""
    try:
        return flags.FLAGS(arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{' '.join(str(error).split())} (flag or configuration; see --help)") from error


def run() -> None:
    """Entry point of `python -m jmer.main`: a user's mistake is one line and exit status 2."""
    logging.set_verbosity(logging.ERROR)
    logging.use_absl_handler()
    try:
        arguments = _parse(sys.argv)
        status = main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    run()
