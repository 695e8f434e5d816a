"""Names that are hard to write and read back, by kind: those that are names, and those that are refused."""

from jmer.text import LONGEST_NAME

KEPT_KINDS = {
    "quotes": ('says "hi"', "O'Neil", '"'),
    "separators": ("Ross, Rachel", ";", "|"),
    "backslashes": ("a\\b", "\\n", "\\"),
    "formulas": ("=1+1", "+41 44", "-1", "@SUM(A1)"),
    "languages": ("Zoë", "日本語", "עברית"),
    "direction": ("مرحبا\u200f", "\u202eabc", "a\u2066b\u2069"),
    "emoji": ("👩‍👩‍👧", "👍", "\U0001f1ec\U0001f1ed"),
    "combining": ("e\u0301", "\u0301", "Z\u0351\u036b"),
    "Windows-1252 as latin-1": ("Ross\x92s", "\x9b2J", "\x80"),
    "missing values": ("NA", "nan", "None", "null"),
    "numbers": ("007", "1e5", "1.0", "0x1F"),
    "other values": ("True", "2020-01-01", "[1, 2]"),
    "blanks": (" leading", "trailing ", "in  side"),
    "other blanks": ("\u00a0", "a\u00a0b", "\u2003"),
    "empty": ("", "\u200b", "\ufeff"),
    "mathtext": ("$\\frac{a}$", "$x", "$$"),
    "LaTeX": ("\\input{x}", "\\write18{y}", "{ } ^ ~ \\ & % # _"),
    "HTML": ("</script>", "<script>alert(1)</script>", "&lt;b>"),
    "paths": ("../../etc", "/etc/passwd", "a/b"),
    "devices": ("CON", "LPT1", "nul.txt"),
    "formats": ("%s{0}", "{x}", "%(a)d"),
    "long": ("x" * LONGEST_NAME, "日" * LONGEST_NAME, "👍" * LONGEST_NAME),
}
REFUSED_KINDS = {
    "carriage return": ("a\rb", "\r", "a\r\nb"),
    "line feed": ("a\n", "\nb", "a\nb"),
    "tab": ("\ta", "a\tb", "\t"),
    "terminal": ("\x1b[2J", "\x1b]0;title\x07", "\x7f"),
    "NUL": ("\x00a", "a\x00b", "a\x00\x00b"),
    "other line breaks": ("a\x85b", "a\u2028b", "a\u2029b"),
    "half a character": ("a\ud800", "\udffe", "\udcff.csv"),
    "too long": ("x" * (LONGEST_NAME + 1), "日" * 5_000, "a b" * 1_000),
}
KEPT = tuple(name for names in KEPT_KINDS.values() for name in names)
REFUSED = tuple(name for names in REFUSED_KINDS.values() for name in names)
