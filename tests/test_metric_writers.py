"""Files of metrics keep every finished step once, through kills and resumes; and the console line of an epoch."""

import json
import math
import os
import signal
import struct
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tiny import linear_config

from jmer.errors import UserError
from jmer.training.metric_writers import JsonLines, MetricWriter, TensorBoard, read_json_lines
from jmer.training.progress import progress_line


def events(folder):
    """Parses event files as TensorBoard does: length, its checksum, the event, its checksum."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:])):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            body = data[at + 12 : at + 12 + length]
            checksum = crc32c(body)
            masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack_from("<I", data, at + 12 + length) == (masked,)
            found.append(Event.FromString(body))
            at += 16 + length
    return found


def scalars(folder):
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events(folder) if e.summary.value]


def test_one_json_object_per_line(tmp_path):
    writer = JsonLines(tmp_path / "run" / "metrics.jsonl", 0)
    writer.write(1, {"train/loss": 0.1, "epoch": 1})
    writer.write(2, {"train/loss": np.float32(0.5), "epoch": np.int32(2), "validation/weighted_f1": jnp.float32(0.25)})
    lines = writer.path.read_text().splitlines()
    assert json.loads(lines[0]) == {"step": 1, "train/loss": 0.1, "epoch": 1}
    assert json.loads(lines[1]) == {"step": 2, "train/loss": 0.5, "epoch": 2, "validation/weighted_f1": 0.25}
    assert read_json_lines(writer.path) == [json.loads(line) for line in lines]


def test_non_finite_values_are_null(tmp_path):
    writer = JsonLines(tmp_path / "metrics.jsonl", 0)
    writer.write(1, {"a": math.nan, "b": math.inf, "c": np.float32(-np.inf), "d": 1e308})

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    row = json.loads(writer.path.read_text(), parse_constant=refuse)
    assert row == {"step": 1, "a": None, "b": None, "c": None, "d": 1e308}


def test_resume_drops_later_steps_and_the_line_that_was_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLines(path, 0)
    for step in range(1, 6):
        writer.write(step, {"loss": step / 3})
    whole = path.read_text()
    path.write_text(whole + '{"step": 6, "lo')
    assert [row["step"] for row in read_json_lines(path)] == [1, 2, 3, 4, 5]

    resumed = JsonLines(path, 3)
    for step in range(4, 6):
        resumed.write(step, {"loss": step / 3})
    assert path.read_text() == whole


def test_a_complete_line_without_its_newline_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    JsonLines(path, 2).write(3, {})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_fresh_run_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    JsonLines(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("damage", ['{"st', "[]", "7", "{}", "\0\0"])
def test_a_damaged_line_is_reported_and_the_file_stays(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{damage}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2, is not a line of metrics .*: repair it"):
        JsonLines(path, 1)
    assert path.read_text().count("\n") == 3


def test_tensorboard_reads_the_scalars_back(tmp_path):
    writer = TensorBoard(tmp_path, 0)
    writer.write(1, {"train/loss": 1.5, "validation/weighted_f1": np.float32(0.5)})
    writer.write(2, {"train/loss": jnp.float32(0.25)})
    # Read before the file is closed: what is written is on the disk.
    assert scalars(tmp_path) == [(1, {"train/loss": 1.5, "validation/weighted_f1": 0.5}), (2, {"train/loss": 0.25})]
    writer.close()


def test_tensorboard_learns_which_steps_a_resume_redoes(tmp_path):
    for resumed_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = TensorBoard(tmp_path, resumed_step)
        for step in steps:
            writer.write(step, {"loss": step})
        writer.close()
    starts = [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [1, 3]  # TensorBoard forgets steps from here on when it meets this mark.
    assert [step for step, _ in scalars(tmp_path)] == [1, 2, 3, 3, 4]


def test_a_metric_writer_writes_both(tmp_path):
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(1, {"train/loss": 0.5, "train/bad": math.nan})
    assert read_json_lines(tmp_path / "metrics.jsonl") == [{"step": 1, "train/loss": 0.5, "train/bad": None}]
    ((step, values),) = scalars(tmp_path / "tensorboard")
    assert step == 1 and values["train/loss"] == 0.5 and math.isnan(values["train/bad"])


@pytest.mark.slow
def test_a_killed_process_keeps_what_it_wrote(tmp_path):
    program = (
        "import os, signal, sys; from jmer.training.metric_writers import MetricWriter\n"
        "writer = MetricWriter(sys.argv[1], 0)\n"
        "for step in range(1, 4): writer.write(step, {'loss': step / 4})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    expected = [(step, {"loss": step / 4}) for step in (1, 2, 3)]
    assert [(row.pop("step"), row) for row in read_json_lines(tmp_path / "metrics.jsonl")] == expected
    assert scalars(tmp_path / "tensorboard") == expected


VALUES = {
    "train/loss": 1.234567,
    "train/loss_task": 1.1,
    "train/loss_self": -0.0123456,
    "train/weighted_f1": 0.71234,
    "validation/weighted_f1": 0.6,
}


def planned(epochs, **changes):
    return linear_config(training__epochs=epochs, **changes)


def test_progress_line():
    line = progress_line(7, VALUES | {"utterances_per_second": 4321.4}, planned(80), seconds_left=192.2)
    assert line == (
        "epoch  7/80  loss 1.2346 (task 1.1, self -0.012346)  W-F1 train 71.23 validation 60.00"
        "  4321 utterances/s  ETA 0:03:12"
    )
    bare = progress_line(3, {"utterances_per_second": 9}, planned(3), seconds_left=0)
    assert bare == "epoch 3/3  9 utterances/s  ETA 0:00:00"


def test_progress_line_shows_the_metric_that_selects():
    values = VALUES | {"validation/f1_sad": 0.25, "utterances_per_second": 9}
    line = progress_line(1, values, planned(2, selection_metric="f1_sad"), seconds_left=0)
    assert "  F1 of sad validation 25.00  9 utterances/s" in line


def test_the_time_left_is_a_limit_where_training_may_stop_early():
    line = progress_line(1, {"utterances_per_second": 9}, planned(2, training__patience=5), seconds_left=60)
    assert line.endswith("  ETA at most 0:01:00")


@pytest.mark.parametrize(
    "terms, shown, columns",
    [
        (["self"], "1.2346 (self 0.22222)", 109),
        (["self", "full"], "1.235 (self 0.2222, full 0.2222)", 120),
        (["classification", "distillation"], "1.23 (classification 0.222, distillation 0.222)", 135),
    ],
)
def test_progress_line_gives_digits_to_fit(terms, shown, columns):
    values = {name: value for name, value in VALUES.items() if not name.startswith("train/loss_")}
    values |= {f"train/loss_{name}": 2 / 9 for name in terms}
    line = progress_line(100, values | {"utterances_per_second": 12345}, planned(100), seconds_left=35999)
    assert f"loss {shown}  W-F1" in line
    assert len(line) == columns


def test_progress_line_shows_a_loss_that_is_not_finite():
    line = progress_line(1, {"train/loss": math.nan, "utterances_per_second": 1}, planned(2), seconds_left=1)
    assert "loss nan" in line
