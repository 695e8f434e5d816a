"""What programs print: mistakes in a line each, and nothing that moves a terminal or that its encoding lacks."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jmer.command import Parser, exit_status, show
from jmer.errors import UserError

ROOT = Path(__file__).parent.parent
HOSTILE = {
    "\x1b[2J\x1b]0;owned\x07": r"\x1b[2J\x1b]0;owned\x07",
    "a\nerror: b\r": r"a\nerror: b\r",
    "\udcff": r"\udcff",
}


def failing(error):
    def command(arguments):
        raise error

    return command


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (lambda name: UserError(f"no split '{name}'"), "error: no split '{}'"),
        (lambda name: FileNotFoundError(2, "No such file", name), "error: {}: No such file"),
        (lambda name: OSError(f"codec: {name}"), "error: codec: {}"),
        (lambda name: MemoryError(name), "error: not enough memory ({}): free some"),
    ],
)
def test_a_mistake_is_one_line_whatever_is_in_it(capfd, error, line, name):
    assert exit_status(failing(error(name)), []) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith(line.format(HOSTILE[name])) and err.count("\n") == 1 and err[:-1].isprintable()


def test_libraries_that_memory_is_too_small_for(capfd):
    assert exit_status(failing(ImportError("/lib/x.so: failed to map segment from shared object")), []) == 2
    assert capfd.readouterr().err.startswith("error: not enough memory to load /lib/x.so: failed to map segment")
    with pytest.raises(ImportError, match="no such module"):
        exit_status(failing(ImportError("no such module")), [])


def test_several_mistakes_are_a_line_each(capfd):
    assert exit_status(failing(UserError("one\x07", "two\n", "three")), []) == 2
    assert capfd.readouterr().err == "error: one\\x07\ntwo\\n\nthree\n"
    assert str(UserError("one", "two")) == "one\ntwo"


@pytest.mark.parametrize("argument", ["runs/\udcff", "--corpus=\udc80", "--config.data.path=a\udcffb"], ids=ascii)
def test_an_argument_that_is_no_text_is_refused_before_the_command(capfd, argument):
    assert exit_status(failing(AssertionError), ["--mode", argument]) == 2
    shown = argument.encode("unicode_escape").decode()
    assert capfd.readouterr().err == f"error: '{shown}' on the command line is not utf-8: rename it\n"


@pytest.mark.parametrize("argument", ["gs://bucket/a", "--out=s3://bucket/a", "--config.data.path=hdfs://node/a"])
def test_an_argument_that_is_an_address_is_refused_before_the_command(capfd, argument):
    assert exit_status(failing(AssertionError), ["--mode", argument]) == 2
    line = f"error: {argument.partition('=')[2] or argument} is an address, and files and folders alone can be read and"
    out, err = capfd.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "Zoë ± 👍\n"), ("latin-1", "Zoë ± \\U0001f44d\n"), ("ascii", "Zo\\xeb \\xb1 \\U0001f44d\n")],
)
def test_what_an_encoding_lacks_is_escaped(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    show("Zoë ± 👍", stream)
    assert stream.buffer.getvalue().decode(encoding) == shown


def test_help_is_shown_the_same_way(capsys):
    parser = Parser(prog="p", description="First.\n\nSecond\x1b.")
    parser.print_help()
    help_text = capsys.readouterr().out
    assert help_text == parser.format_help().replace("\x1b", r"\x1b") and "\n" in help_text


CLOSED = """
import os, sys
from jmer.command import exit_status, show
def command(arguments):
    with open(arguments[0], "w") as file:
        show("on stdout")
        os.write(1, b"below Python"), os.write(2, b"below Python")
        file.write("kept")
sys.exit(exit_status(command, sys.argv[1:]))
"""


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_mistake_and_no_file_takes_their_place(tmp_path, closed):
    line = f'exec "$0" -c "$1" "$2" {closed}'
    path = str(tmp_path / "file")
    done = subprocess.run(["sh", "-c", line, sys.executable, CLOSED, path], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0 and Path(path).read_text() == "kept"


def test_all_programs_print_with_show():
    for path in [*(ROOT / "jmer").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        names = [n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)]
        assert names.count("print") == (path == ROOT / "jmer" / "command.py"), path
