"""An error is a line that fits the screen, whatever it quotes."""

from jmer.errors import LONGEST_LINE, UserError


def test_a_long_line_keeps_its_beginning_and_its_end():
    whole, long = "file: wrong: remedy", f"file: 'x{'y' * 5_000}z': remedy"
    assert UserError(whole, "x" * LONGEST_LINE).args == (whole, "x" * LONGEST_LINE)
    (line,) = UserError(long).args
    assert len(line) == LONGEST_LINE and line.startswith("file: 'xy") and line.endswith("yz': remedy") and "…" in line
