"""Names of files for names of anything."""

import os
import unicodedata

from names import KEPT

from jmer.files import file_names

NAMES = [
    *KEPT,
    "CON",
    "com1",
    "nul",
    "日" * 400,
    "👍" * 400,
    "A",
    "a",
    "a-2",
    "a",
    "é",
    "e\u0301",
    "-rf",
    ".hidden",
    "a.b",
]


def test_each_name_gets_a_file_of_its_own_inside_the_folder(tmp_path):
    found = file_names(NAMES)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(NAMES)
    for name in found:
        assert len(f"{name}.srt".encode()) <= 255
        assert not name.startswith(("-", ".")) and name.lower() not in ("con", "com1", "nul")
        (tmp_path / f"{name}.srt").write_text(name)
    assert sorted(os.listdir(tmp_path)) == sorted(f"{name}.srt" for name in found)


def test_ordinary_names_are_kept():
    ordinary = ["dia0_utt3", "Ses01F_impro01", "Zoë", "日本語", "2020-01-01"]
    assert file_names(ordinary) == ordinary
    assert file_names(["a/b", "../../etc", "a b", ""]) == ["a_b", "_etc", "a_b-2", "_"]
