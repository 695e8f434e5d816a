"""Model selection: the rules by which a run chooses the epoch that it reports."""

import dataclasses

from jmer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Selection:
    """One value of `config.selection`.

    Attributes:
      name: the value.
      split: the split whose weighted F1 chooses the epoch; None = the last epoch, whatever its scores.
      description: how the epoch was chosen, for the place after "epoch 7 of 80, " in a report.
      oracle: True if the test split chooses the epoch, which makes its scores optimistic.
    """

    name: str
    split: str | None
    description: str
    oracle: bool = False


SELECTIONS = {
    selection.name: selection
    for selection in (
        Selection("validation", "validation", "chosen by validation weighted F1"),
        Selection("last", None, "the last epoch, not chosen by a score"),
        Selection(
            "test_oracle",
            "test",
            "chosen by TEST weighted F1 (test_oracle: optimistic, not comparable)",
            oracle=True,
        ),
    )
}


def get_selection(name: str) -> Selection:
    """Returns the selection rule of a name.

    Raises:
      UserError: if there is no such rule.
    """
    if name not in SELECTIONS:
        raise UserError(f"unknown selection '{name}': choose one of {', '.join(SELECTIONS)}")
    return SELECTIONS[name]
