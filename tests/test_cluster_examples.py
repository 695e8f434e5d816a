"""The job scripts for clusters run, with stubs for the launchers: two processes of two devices train a tiny model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ports import free_port
from tiny import tiny_corpus

from jmer.data.corpus import save_corpus

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "cluster"
TIMEOUT = 200  # seconds
FIELDS = ["--config", "concat_mlp_meld:tiny", "--config.training.epochs=1"]

# What the launchers do: they start the command in two processes, with their variables.
SRUN = """
export SLURM_STEP_ID=0 SLURM_STEP_NODELIST=127.0.0.1 SLURM_STEP_TASKS_PER_NODE=2 SLURM_NTASKS=2 SLURM_NODEID=0
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & second=$!
wait $first && wait $second
"""
GCLOUD = """
export TPU_WORKER_HOSTNAMES=127.0.0.1,127.0.0.2
for last; do :; done
TPU_WORKER_ID=0 bash -c "$last" & first=$!
TPU_WORKER_ID=1 bash -c "$last" & second=$!
wait $first && wait $second
"""
JMER = f"""
exec {sys.executable} -c 'from jmer.cli.program import run; run()' "$@"
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora") / "a corpus"
    save_corpus(tiny_corpus(), folder)
    return folder


@pytest.fixture
def environment(tmp_path):
    for name, text in {
        "srun": SRUN,
        "gcloud": GCLOUD,
        "jmer": JMER,
        "scontrol": f'echo "$@" >> {tmp_path}/calls',
    }.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{text}")
        path.chmod(0o755)
    own = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    return {name: value for name, value in os.environ.items() if "SLURM" not in name} | own


def assert_trained(done, workdir):
    assert done.returncode == 0, done.stdout + done.stderr
    for process in (0, 1):
        assert f"(this is process {process})" in done.stdout
    assert "shard_map on 4 x cpu" in done.stdout
    assert (workdir / "report.md").exists()


def run(command, environment):
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)


@pytest.mark.slow
def test_a_job_of_slurm(corpus, environment, tmp_path):
    arguments = [*FIELDS, "--corpus", corpus, "--workdir", tmp_path / "w"]
    done = run(["bash", EXAMPLES / "slurm.sbatch", *arguments], environment | {"SLURM_JOB_ID": "7"})
    assert_trained(done, tmp_path / "w")
    assert f"waiting for 2 processes at 127.0.0.1:{environment['JAX_COORDINATOR_PORT']}" in done.stdout
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(
    ("status", "restarts", "again"), [(75, 0, True), (143, 9, True), (75, 10, False), (2, 0, False)]
)
def test_a_job_of_slurm_requeues_itself(status, restarts, again, environment, tmp_path):
    (tmp_path / "bin" / "srun").write_text(f"#!/bin/sh\nexit {status}\n")
    told = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    assert run(["bash", EXAMPLES / "slurm.sbatch"], environment | told).returncode == status
    assert (tmp_path / "calls").exists() == again
    assert not again or (tmp_path / "calls").read_text() == "requeue 7\n"


@pytest.mark.slow
def test_a_tpu_pod(corpus, environment, tmp_path):
    arguments = [*FIELDS, "--corpus", corpus, "--workdir", tmp_path / "w"]
    done = run(["bash", EXAMPLES / "tpu_pod.sh", *arguments], environment | {"NAME": "a", "ZONE": "b"})
    assert_trained(done, tmp_path / "w")


def pod():
    job = yaml.safe_load((EXAMPLES / "jobset.yaml").read_text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    return job, container


def test_the_pods_of_kubernetes_are_as_many_as_the_command_says():
    job, container = pod()
    assert job["completionMode"] == "Indexed"
    assert f"--processes={job['completions']}" in container["command"]
    assert job["completions"] == job["parallelism"] == 2
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["template"]["spec"]["volumes"]}


@pytest.mark.slow
def test_pods_of_kubernetes(corpus, environment, tmp_path):
    """Their names, from which `auto` takes the address, cannot be had here."""
    _, container = pod()
    address = f"127.0.0.1:{environment['JAX_COORDINATOR_PORT']}"
    given = {"coordinator": address, "config": FIELDS[1], "corpus": corpus, "workdir": tmp_path / "w"}
    command = [
        f"--{name}={given[name]}" if (name := word.removeprefix("--").partition("=")[0]) in given else word
        for word in container["command"]
    ]
    pods = [
        subprocess.Popen(
            [*command, *FIELDS[2:]],
            env=environment | {"JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in pods]
    finally:
        for process in pods:
            process.kill()
    assert [process.returncode for process in pods] == [0, 0], outputs
    assert "shard_map on 4 x cpu" in outputs[0] and (tmp_path / "w" / "report.md").exists()
