"""When one of several processes ends early, the others end too, with one line. Processes without JAX stand for them."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ports import free_port

from jmer.cli.watch import meet
from jmer.errors import UserError

ROOT = Path(__file__).parent.parent
# Seconds; the processes do nothing else.
SOON = 15
ALL = "start all of them, with one HOST:PORT of process 0"

PROGRAM = """
import sys, time
from jmer.cli.watch import meet
from jmer.command import exit_status

address, process, processes, timeout, version = sys.argv[1:]
times = {"timeout": float(timeout), "silence": 2}

def met(_):
    global connection
    connection = meet(address, int(process), int(processes), versions={"jmer": version}, **times)

if status := exit_status(met, []):
    sys.exit(status)
print("met", flush=True)
actions = {
    "fail": lambda: connection.fail(2, ("no corpus", "more")),
    "finish": connection.finish,
    "wait": lambda: time.sleep(60),
}
actions[sys.stdin.readline().strip()]()
print("finished", flush=True)
"""


class Processes:
    """Processes that meet, and do what they are told.

    Args:
      count: how many there are.
      started: the indices of those that are started at once.
      timeout: seconds that they wait for each other.
      versions: of those that are started.
    """

    def __init__(self, count, started=None, timeout=SOON, versions=None):
        self.address = f"127.0.0.1:{free_port()}"
        self.count, self.timeout = count, timeout
        self.all = []
        started = range(count) if started is None else started
        for process, version in zip(started, versions or ["1"] * len(started), strict=True):
            self.start(process, version)

    def start(self, process, version="1"):
        arguments = [self.address, str(process), str(self.count), str(self.timeout), version]
        self.all.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def meet(self):
        """Waits until all have met."""
        for process in self.all:
            assert process.stdout.readline() == "met\n", process.stderr.read()

    def tell(self, *actions):
        self.meet()
        for process, action in zip(self.all, actions, strict=True):
            process.stdin.write(f"{action}\n")
            process.stdin.flush()

    def end(self):
        """Returns the exit status, the output and the errors of each."""
        outputs = [process.communicate(timeout=SOON) for process in self.all]
        return [(process.returncode, *output) for process, output in zip(self.all, outputs, strict=True)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("killed", [0, 1, 3])
def test_when_one_is_killed_the_others_end(killed):
    with Processes(4) as processes:
        processes.tell(*["wait"] * 4)
        processes.all[killed].send_signal(signal.SIGKILL)
        ends = processes.end()
    line = (
        f"error: another process ended (process {killed} of 4, killed or unreachable): start all again with the same "
        "command\n"
    )
    assert ends == [(-9, "", "") if process == killed else (75, "", line) for process in range(4)]


@pytest.mark.parametrize("stopped", [0, 1])
def test_one_that_stands_still_is_taken_for_dead(stopped):
    with Processes(3) as processes:
        processes.tell(*["wait"] * 3)
        time.sleep(2.5)
        assert [process.poll() for process in processes.all] == [None] * 3
        processes.all[stopped].send_signal(signal.SIGSTOP)
        for number in set(range(3)) - {stopped}:
            assert processes.all[number].wait(SOON) == 75
            assert f"(process {stopped} of 3, killed or unreachable)" in processes.all[number].stderr.read()


@pytest.mark.parametrize("failed", [0, 2])
def test_an_error_of_one_is_in_the_line_of_the_others(failed):
    with Processes(3) as processes:
        processes.tell(*("fail" if process == failed else "wait" for process in range(3)))
        ends = processes.end()
    line = f"error: another process ended (process {failed} of 3: no corpus): start all again with the same command\n"
    assert ends == [(2, "", "error: no corpus\nmore\n" if process == failed else line) for process in range(3)]


def test_all_wait_for_the_last_to_finish():
    with Processes(3) as processes:
        processes.tell("wait", "finish", "finish")
        with pytest.raises(subprocess.TimeoutExpired):
            processes.all[1].wait(0.5)
        processes.all[0].send_signal(signal.SIGKILL)
        assert [end[0] for end in processes.end()] == [-9, 75, 75]


def test_all_finish():
    with Processes(3) as processes:
        processes.tell(*["finish"] * 3)
        assert processes.end() == [(0, "finished\n", "")] * 3


def test_a_process_that_is_missing_is_named():
    with Processes(4, started=[0, 2], timeout=3) as processes:
        (first, _, line), (third, _, other) = processes.end()
    assert (first, third) == (2, 2)
    # On a crowded machine process 2 may be late.
    expected = rf"process 0 waited 3 s at {processes.address} for 1, (2, )?3 of the 4 processes: {ALL}"
    assert re.fullmatch(f"error: {expected}\n", line)
    assert re.fullmatch(rf"error: process (0 ended \({expected}\)|2 waited 3 s at .*: {ALL})\n", other)


def test_without_process_0_the_others_name_its_address():
    with Processes(2, started=[1], timeout=1) as processes:
        ((status, _, line),) = processes.end()
    assert status == 2
    assert line == f"error: process 1 waited 1 s at {processes.address} (Connection refused): {ALL}\n"


@pytest.mark.parametrize(
    ("started", "versions", "message"),
    [
        ([0, 1], ["1", "2"], "process 1 has jmer 2, process 0 has 1: start all processes alike"),
        ([0, 1, 1], ["1", "1", "1"], "two processes were started as process 1: give each an index of its own"),
    ],
)
def test_processes_that_do_not_belong_together_are_refused(started, versions, message):
    with Processes(3, started, timeout=2, versions=versions) as processes:
        ends = processes.end()
    assert {end[0] for end in ends} == {2}
    assert f"error: {message}\n" in {end[2] for end in ends}


def test_strangers_are_turned_away():
    with Processes(2, started=[0]) as processes:
        host, port = processes.address.split(":")
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"{}\n", b"x" * 100_000):
            with connect(host, int(port)) as stranger:
                stranger.sendall(sent)
        processes.start(1)
        processes.tell("finish", "finish")
        assert processes.end() == [(0, "finished\n", "")] * 2


def connect(host, port):
    """Connects to a process that may not listen yet."""
    end = time.monotonic() + SOON
    while True:
        try:
            return socket.create_connection((host, port))
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match=r"cannot listen at port"):
        meet(f"127.0.0.1:{taken.getsockname()[1]}", 0, 2, timeout=1, silence=1, versions={})
