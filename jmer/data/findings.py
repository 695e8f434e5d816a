"""What a check of a corpus has found: a measurement, a verdict, and what it means for who trains on the corpus."""

import dataclasses

FINE, NOTE, OPEN, WARNING = "fine", "note", "open", "warning"
"""Verdicts: nothing to see; to be known when scores are read; too few data to tell; scores would mislead."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
      check: what was checked, e.g. `linear probe`.
      subject: of what, e.g. `visual, test`.
      measured: what was found, with its numbers.
      verdict: `FINE`, `NOTE`, `OPEN` or `WARNING`.
      meaning: what it means and what to do; empty if the verdict is `FINE`.
    """

    check: str
    subject: str
    measured: str
    verdict: str = FINE
    meaning: str = ""

    @property
    def line(self) -> str:
        """The finding in one line."""
        return f"{self.verdict}: {self.check}, {self.subject}: {self.measured}" + f"; {self.meaning}" * bool(
            self.meaning
        )
