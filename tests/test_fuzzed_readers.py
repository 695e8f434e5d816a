"""Whatever is done to a source, it becomes a corpus that comes back, or lines that say what is wrong; nothing is left.

With `--slow` there are many more changes, other ones in each run.
"""

import contextlib
import os
import pickle
import warnings
from pathlib import Path

import pytest
from fuzzing import BYTE_EDITS, VALUE_EDITS, WHERE, damaged, damaged_file, edited, folder, refusal
from hypothesis import assume, example, given
from hypothesis import strategies as st
from small_sources import SOURCES, Source
from test_bounded_pickles import FILES

from jmer.data.convert import convert
from jmer.data.corpus import load_saved
from jmer.data.validation import validate_corpus


def converted(source: Source) -> None:
    """Converts a source in the current folder, and checks the corpus."""
    with contextlib.redirect_stdout(None):
        convert([*source.arguments, "corpus"])


def check(source: Source) -> None:
    if not refusal(lambda: converted(source)):
        saved = load_saved("corpus").checked()
        validate_corpus(saved, for_training=False)
        assert not [name for name in os.listdir() if name.startswith(".")]


@pytest.mark.parametrize("name", SOURCES)
def test_whole_sources_are_read(name):
    source = SOURCES[name]
    with folder():
        source.write(source.content)
        assert not refusal(lambda: converted(source))


@pytest.mark.parametrize("name", SOURCES)
@given(edits=VALUE_EDITS)
def test_other_values(name, edits):
    source = SOURCES[name]
    content = edited(source.content, edits)
    with folder():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                source.write(content)
        except Exception:  # the format cannot hold such values
            assume(False)
        check(source)


@pytest.mark.parametrize("name", SOURCES)
@given(file=WHERE, member=st.none() | WHERE, edits=BYTE_EDITS)
def test_other_bytes(name, file, member, edits):
    source = SOURCES[name]
    with folder():
        source.write(source.content)
        files = sorted(path for path in Path().rglob("*") if path.is_file())
        damaged_file(files[file % len(files)], edits, member)
        check(source)


PICKLES = {**FILES, **{f"whole {protocol}": pickle.dumps(SOURCES["mmgcn"].content, protocol) for protocol in range(6)}}


def with_each_whole(function):
    """Adds every pickle without any change to the examples of a test."""
    for name in PICKLES:
        function = example(name=name, edits=[])(function)
    return function


@with_each_whole
@given(name=st.sampled_from(list(PICKLES)), edits=BYTE_EDITS)
def test_hostile_pickles(name, edits):
    with folder():
        Path("t.pkl").write_bytes(damaged(PICKLES[name], edits))
        check(SOURCES["mmgcn"])
