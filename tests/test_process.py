"""Programs keep freed memory where the C library lets them, and start in any environment or say what is wrong."""

import os
import platform
import re
import subprocess
import sys
import threading

import jax
import pytest

from jmer.errors import UserError
from jmer.process import check_devices, check_threads

PROGRAM = """
import resource
import numpy as np
from jmer.process import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is left alone")
def test_large_blocks_are_used_again():
    def second_time(keep):
        program = PROGRAM.format(keep=keep)
        return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)

    assert second_time(keep=False) > 100 > second_time(keep=True)


@pytest.mark.parametrize("platforms", ["cuda", "nonsense", "tpu,cuda"])
def test_platforms_that_are_not_there_are_one_line_before_a_folder_is_claimed(tmp_path, platforms):
    command = [sys.executable, "-m", "jmer.main", "--config", "dagerc_iemocap:tiny", "--workdir", str(tmp_path / "run")]
    environment = os.environ | {"JAX_PLATFORMS": platforms}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    remedy = "JAX finds no such device here: unset it, or set it to cpu"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: JAX_PLATFORMS={platforms}: {remedy}\n")
    assert not (tmp_path / "run").exists()


def test_a_jax_without_devices_is_one_line(monkeypatch):
    def none():
        raise RuntimeError("no\ndriver")

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(UserError, match=r"JAX finds no device \(no driver\): set JAX_PLATFORMS=cpu"):
        check_devices()


SET_UP = """
import jax, jax.numpy as jnp, os
from jmer.process import set_up_process
set_up_process()
print(jnp.ones(2).dtype, jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(
    ("variables", "cache"),
    [({"JAX_ENABLE_X64": "1", "HOME": "/nowhere"}, "/nowhere/.cache/jmer"), ({"XDG_CACHE_HOME": "beside"}, "None")],
)
def test_programs_compute_in_32_bits_with_a_cache_if_there_is_a_folder_for_it(variables, cache):
    dropped = {"JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped} | variables
    done = subprocess.run([sys.executable, "-c", SET_UP], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["float32", cache] and done.stderr == ""


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 10, resource.RLIM_INFINITY))
from jmer.command import launch
from jmer.main import main
sys.argv = ["jmer", *sys.argv[2:]]
launch(main)
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems do not limit the address space")
@pytest.mark.parametrize("kilobytes", [900_000, 1_800_000, 3_000_000])
def test_too_small_an_address_space_is_one_line(tmp_path, kilobytes):
    flags = ["--config=dagerc_iemocap:tiny", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-c", LIMITED, str(kilobytes), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    line = (
        f"error: the address space of the process is limited to {kilobytes} kB, and JAX reserves up to 4000000: raise "
        "the limit (`ulimit -v unlimited`)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems do not limit the address space")
@pytest.mark.parametrize("arguments", [["inspect", "synthetic-meld"], ["convert", "table", "a.csv", "b"]], ids=" ".join)
def test_commands_on_data_need_less_address_space_and_say_so(arguments):
    script = LIMITED.replace("jmer.main", "jmer.cli.program")
    command = [sys.executable, "-c", script, "1800000", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    line = (
        "error: the address space of the process is limited to 1800000 kB, and Arrow reserves up to 2000000: raise the "
        "limit (`ulimit -v unlimited`)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize("possible", [0, 5])
def test_too_few_threads_is_one_line_and_leaves_none(monkeypatch, possible):
    before, start, started = threading.active_count(), threading.Thread.start, []

    def limited(thread):
        if len(started) == possible:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    line = (
        f"this process can start {possible} threads, and JAX needs up to 32: raise the limit of processes "
        "(`ulimit -u`, or that of the container)"
    )
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        check_threads()
    assert threading.active_count() == before


def test_enough_threads_are_found_and_leave_none():
    before = threading.active_count()
    check_threads()
    assert threading.active_count() == before
