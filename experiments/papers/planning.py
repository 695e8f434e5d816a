"""From a declaration to runs: what each entry trains on a corpus, or why it cannot."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from experiments.models import model_row
from experiments.papers.declaration import Entry, Table
from experiments.runner import Row, sound_corpus
from jmer.config import fit_to_corpus, flatten
from jmer.errors import UserError
from jmer.models import get_spec


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """An entry on a corpus.

    Attributes:
      entry: as declared.
      row: what is run; None = nothing is.
      obstacle: why the entry cannot be run on this corpus; empty = it can, or only the paper has it.
    """

    entry: Entry
    row: Row | None
    obstacle: str = ""


class Planner:
    """Plans tables so that equal runs have one folder, whatever tables they stand in and whatever they are called."""

    def __init__(self, *, variant: str, changes: Mapping[str, str]):
        """Starts without rows.

        Args:
          variant: of every experiment, joined by commas; empty = none.
          changes: `section.field` -> text, for every run.
        """
        self._variant, self._changes = variant, changes
        self._rows: dict[tuple[str, str], Row] = {}
        self._fitted = functools.cache(self._fit)

    @property
    def rows(self) -> list[Row]:
        """What was planned so far, each run once."""
        return list(self._rows.values())

    def plan(self, table: Table, corpus: str) -> list[Line]:
        """Returns a table's lines on a corpus (as `--corpus` takes it).

        Raises:
          UserError: if the corpus, an experiment, a variant or a change is at fault.
        """
        return [self._line(entry, corpus) for entry in table.entries]

    def _line(self, entry: Entry, corpus: str) -> Line:
        if entry.model is None:
            return Line(entry, None)
        fields, obstacle = self._fitted(entry.model, entry.variant, corpus)
        if not obstacle:
            obstacle = _leader_is_missing(fields, corpus)
        if obstacle:
            return Line(entry, None, obstacle)
        variant = self._first_alike(entry, corpus, fields)
        name = "-".join(filter(None, (entry.model, variant)))
        row = self._rows.setdefault((corpus, name), self._row(entry.model, variant, corpus, name))
        return Line(entry, row)

    def _first_alike(self, entry: Entry, corpus: str, fields: Mapping[str, Any]) -> str:
        """Returns the first variant that makes the same run, such as none at all."""
        names = ("", *get_spec(fields["model.name"]).variants)
        return next(name for name in names if self._fitted(entry.model, name, corpus)[0] == fields)

    def _fit(self, model: str, variant: str, corpus: str) -> tuple[dict[str, Any], str]:
        """Returns the fields of a complete configuration, or none and why the corpus does not fit."""
        made, config = sound_corpus(corpus), self._row(model, variant, corpus, model).config
        try:
            return flatten(fit_to_corpus(config, made.card, made.conversations("train"))), ""
        except UserError as error:
            return {}, str(error)

    def _row(self, model: str, variant: str, corpus: str, name: str) -> Row:
        variants = ",".join(filter(None, (self._variant, variant)))
        return model_row(model, corpus, name=name, variant=variants, changes=self._changes)


def _leader_is_missing(fields: Mapping[str, Any], corpus: str) -> str:
    """Says so if a modality is to lead that the corpus lacks, so that another would take its place unnoticed."""
    card, leader = sound_corpus(corpus).card, fields.get("model.dominant")
    if leader is None or leader in card.modalities or leader == "text":
        return ""
    return f"{leader} cannot be dominant: corpus '{card.name}' has only {', '.join(card.modalities)}"
