"""The inspect command prints counts in lines of at most 100 characters, and defects."""

import re

import numpy as np
import pytest

from jmer.command import exit_status
from jmer.data.corpus import Card, Conversation, build_corpus, save_corpus
from jmer.data.inspect import describe_findings, inspect

CARD = Card("made-up", {"text": 3, "visual": 2}, ("calm", "angry"), "Drawn by hand, " * 20, False)

TOO_FEW = ["too", "few", "labelled", "conversations", "or", "emotions", "for", "a", "classifier"]


def conversation(name, labels, speakers, text=0.5, lacking=()):
    length = len(labels)
    available = ~np.isin(np.arange(length), lacking)
    columns = np.stack([np.full(length, text), np.arange(length), -np.ones(length)], axis=1)
    return Conversation(
        id=name,
        utterances=[str(i) for i in range(length)],
        speakers=speakers,
        labels=np.array(labels, np.int32),
        features={
            "text": columns.astype(np.float32),
            "visual": (2.0 * available[:, None] * [[1, 3]]).astype(np.float32),
        },
        available={"text": np.ones(length, bool), "visual": available},
        sentences=[""] * length,
    )


@pytest.fixture
def printed(tmp_path, capsys):
    def run(splits, *flags):
        save_corpus(build_corpus(splits, CARD), tmp_path / "corpus")
        assert exit_status(inspect, [str(tmp_path / "corpus"), *flags]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 100
        return lines

    return run


def cells(lines, name):
    """Returns the cells of the only row that begins with a name."""
    (line,) = (line for line in lines if line.startswith(f"{name}  "))
    return line.removeprefix(name).split()


def test_it_counts_conversations_lengths_speakers_emotions_and_features(printed):
    lines = printed(
        {
            "train": [
                conversation("a", [0, 1, 1, -1, 1], "ABABC"),
                conversation("b", [0], "A"),
                conversation("c", [1, 0, 0], "DDD", text=-4.0, lacking=(0, 2)),
            ],
            "test": [conversation("d", [1, 1], "AB", lacking=(0, 1))],
        }
    )
    assert lines[0].startswith("made-up (real). Drawn by hand,")
    assert len([line for line in lines if re.match("fingerprint: [0-9a-f]{32}, ", line)]) == 1
    for start, expected in {
        "conversations": ["3", "1", "4"],
        "utterances": ["9", "2", "11"],
        "utterances per conversation, shortest": ["1", "2", "1"],
        "utterances per conversation, first quartile": ["2", "2", "1.75"],
        "utterances per conversation, median": ["3", "2", "2.5"],
        "utterances per conversation, third quartile": ["4", "2", "3.5"],
        "utterances per conversation, longest": ["5", "2", "5"],
        "speakers per conversation, most": ["3", "2", "3"],
        "names of speakers": ["4", "2", "4"],
        "emotion": ["train", "test", "all"],
        "calm": ["4", "50.0%", "0", "0.0%", "4", "40.0%"],
        "angry": ["4", "50.0%", "2", "100.0%", "6", "60.0%"],
        "unlabelled": ["1", "0", "1"],
        "text, train": ["3", "0", "1", "-4", "4"],
        "text, test": ["3", "0", "2", "-1", "1"],
        "visual, train": ["2", "2", "2", "2", "6"],
        "visual, test": ["2", "2", "-", "-", "-"],
    }.items():
        assert cells(lines, start) == expected, start
    assert lines[-1] == "defects: none"


def test_it_lists_defects(printed):
    broken = [conversation(f"c{i}", [0, 5], "AB", text=np.nan) for i in range(8)]
    lines = printed({"train": [conversation("a", [0, 1], "AB")], "test": broken})
    start = lines.index("defects:")
    assert lines[start + 1 : start + 5] == [
        "  test, conversation 'c0': utterance '1' has label 5: with 2 emotions, expected 0 to 1, or -1 for",
        "    unlabelled",
        "  test, conversation 'c0': text of utterance '0' contains NaN or infinity (and 1 more), 2 values in",
        "    total",
    ]
    assert lines[-1] == "  and 6 more"


def test_it_probes_on_request(printed, capsys, tmp_path):
    train, test = [conversation("a", [0, 1, 1, 0], "ABAB")], [conversation("b", [1, 0, 1], "ABA")]
    lines = printed({"train": train, "test": test}, "--probe")
    rows = lines[lines.index("probe:") + 1 :]
    assert rows[0].startswith("open  linear probe  text, train            less than 20 labelled conversations, or one")
    assert rows[1].strip() == "probed"
    assert {row.split()[0] for row in rows if not row.startswith(" ")} == {"open", "fine"}
    assert next(row for row in rows if row.startswith("fine  speakers")).endswith("not known: A, B are names of roles")
    assert describe_findings(()) == "probe: no training split to compare with"


def test_a_probe_needs_a_corpus_without_defects(tmp_path, capsys):
    broken = {"train": [conversation("a", [0, 5], "AB")]}
    save_corpus(build_corpus(broken, CARD), tmp_path / "corpus")
    assert exit_status(inspect, [str(tmp_path / "corpus"), "--probe"]) == 2
    out, err = capsys.readouterr()
    assert "defects:" in out and err.startswith("error: invalid corpus 'made-up'") and len(err.splitlines()) == 1


def test_an_error_is_one_line(tmp_path, capsys):
    for arguments, message in [([str(tmp_path / "none")], "no corpus"), ([], "the following arguments are required")]:
        assert exit_status(inspect, arguments) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert message in err


@pytest.mark.slow
def test_it_describes_a_built_in_corpus(capsys):
    assert exit_status(inspect, ["synthetic-iemocap6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "(synthetic)" in lines[0]
    assert cells(lines, "conversations")[-1] == "151"
    assert lines[-1] == "defects: none"
    assert max(map(len, lines)) <= 100
