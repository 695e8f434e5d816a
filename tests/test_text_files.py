"""Text files are read in the encodings and layouts that spreadsheets and old releases have."""

import logging

import pytest

from jmer.data.readers.text_files import CsvLayout, csv_layout, encoding_of, head_of, read_text
from jmer.errors import UserError

TEXT = "dialogue,sentence\nd0,café – it’s “naïve”\n"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        *[("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("cp1252", "cp1252"), ("utf-16", "utf-16")],
        *[("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32")],
    ],
)
def test_encodings(written, found, tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT.encode(written))
    with caplog.at_level(logging.WARNING):
        assert (encoding_of(path), read_text(path), head_of(path)) == (found, TEXT, TEXT)
    assert ("a.csv is not in UTF-8: read as Windows-1252" in caplog.text) == (found == "cp1252")


def test_a_file_of_two_encodings_and_latin1_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("one,é—ü\n".encode() + "two,é—ü\n".encode("cp1252") + b"three,\x81\n")
    assert read_text(path) == "one,é—ü\ntwo,é—ü\nthree,�\n"
    path.write_bytes("caf\xe9 \xdf\n".encode("latin1"))
    assert read_text(path) == "café ß\n"


def test_letters_at_the_border_of_a_block_and_nothing_at_all_are_valid(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"x" * ((1 << 20) - 1) + "é".encode())
    assert encoding_of(path) == "utf-8"
    path.write_bytes(b"x" * (1 << 20) + b"\xc3")
    assert encoding_of(path) == "cp1252"
    path.write_bytes(b"")
    assert read_text(path) == ""


def test_damage_is_one_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("abc".encode("utf-16")[:-1])
    with pytest.raises(UserError, match=r"a\.csv is damaged: it begins as UTF-16 but is not"):
        read_text(path)
    with pytest.raises(UserError, match=r"cannot read .*b\.csv: No such file"):
        read_text(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("text", "delimiter", "decimal_point"),
    [
        ("a,b,c\n1,2,3", ",", "."),
        ("a\n1", ",", "."),
        ("", ",", "."),
        ("a;b;c\n0,5;2;-1,25", ";", ","),
        ("a;b;c\n0.5;2;x", ";", "."),
        ("a;b\n0,5;0.5", ";", "."),  # neither is sure
        ("a\tb, or c\td\nx\t1,5 m\t2", "\t", "."),
        ('"a, b, c, d";e;f\n"x,5";1;2', ";", "."),
        ("a|b\n1|2", "|", "."),
    ],
)
def test_layouts_of_csv_files(text, delimiter, decimal_point):
    assert csv_layout(text) == CsvLayout(delimiter, decimal_point)
