"""From a declaration to runs: the row of the grid that each entry of a table needs on a corpus."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from experiments.grid.cells import Row
from experiments.grid.corpora import training_corpus
from experiments.grid.models import model_row
from experiments.papers.declaration import Entry, Table
from jmer.config import fit_to_corpus, flatten
from jmer.errors import UserError
from jmer.models import get_spec


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """An entry on a corpus.

    Attributes:
      entry: as declared.
      row: of the grid; None = nothing is run.
      obstacle: why the entry cannot be run on this corpus; empty = it can, or jmer does not have its model.
    """

    entry: Entry
    row: Row | None
    obstacle: str = ""


class Planner:
    """Plans tables so that equal runs share one row, whatever their tables and titles."""

    def __init__(self, *, variant: str, changes: Mapping[str, str]):
        """Creates a planner without rows.

        Args:
          variant: of every experiment, separated by commas; empty = none.
          changes: `section.field` -> text, for every run.
        """
        self._variant, self._changes = variant, changes
        self._rows: dict[tuple[str, str], Row] = {}
        self._fitted = functools.cache(self._fit)

    @property
    def rows(self) -> list[Row]:
        """The rows planned so far, each once."""
        return list(self._rows.values())

    def plan(self, table: Table, corpus: str) -> list[Line]:
        """Returns a table's lines on a corpus (what `--corpus` takes).

        Raises:
          UserError: if the corpus, an experiment, a variant or a change is invalid.
        """
        return [self._line(entry, corpus) for entry in table.entries]

    def _line(self, entry: Entry, corpus: str) -> Line:
        if entry.model is None:
            return Line(entry, None)
        fields, obstacle = self._fitted(entry.model, entry.variant, corpus)
        if not obstacle:
            obstacle = _missing_dominant_modality(fields, corpus)
        if obstacle:
            return Line(entry, None, obstacle)
        variant = self._first_equal(entry, corpus, fields)
        name = "-".join(filter(None, (entry.model, variant)))
        row = self._rows.setdefault((corpus, name), self._row(entry.model, variant, corpus, name))
        return Line(entry, row)

    def _first_equal(self, entry: Entry, corpus: str, fields: Mapping[str, Any]) -> str:
        """Returns the first variant that gives the same configuration; "" if it is the model without variant."""
        names = ("", *get_spec(fields["model.name"]).variants)
        return next(name for name in names if self._fitted(entry.model, name, corpus)[0] == fields)

    def _fit(self, model: str, variant: str, corpus: str) -> tuple[dict[str, Any], str]:
        """Returns the fields of the fitted configuration; or none, and why the corpus does not fit."""
        loaded, config = training_corpus(corpus), self._row(model, variant, corpus, model).config
        try:
            return flatten(fit_to_corpus(config, loaded.card, loaded.conversations("train"))), ""
        except UserError as error:
            return {}, str(error)

    def _row(self, model: str, variant: str, corpus: str, name: str) -> Row:
        variants = ",".join(filter(None, (self._variant, variant)))
        return model_row(model, corpus, name=name, variant=variants, changes=self._changes)


def _missing_dominant_modality(fields: Mapping[str, Any], corpus: str) -> str:
    """Returns an obstacle if the corpus lacks the dominant modality, which the model would replace silently."""
    card, dominant = training_corpus(corpus).card, fields.get("model.dominant")
    if dominant is None or dominant in card.modalities or dominant == "text":
        return ""
    return f"{dominant} cannot be dominant: corpus '{card.name}' has only {', '.join(card.modalities)}"
