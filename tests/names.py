"""Names that are hard to write and read back, yet are names."""

from jmer.text import LONGEST_NAME

KEPT = (
    *('says "hi"', "O'Neil", '"', "Ross, Rachel", ";", "a\\b", "|"),
    *("=1+1", "+41 44", "-1", "@SUM(A1)"),
    *("Zoë", "日本語", "עברית", "مرحبا\u200f", "👩‍👩‍👧", "e\u0301", "Ross\x92s"),
    *("NA", "nan", "None", "null", "", "007", "1e5", "True", "1.0", "0x1F", "2020-01-01"),
    *(" leading", "trailing ", "\u00a0", "$\\frac{a}$", "</script>", "../../etc", "%s{0}"),
    "x" * LONGEST_NAME,
)
