"""What every side of the comparison can do."""

from typing import Any, Protocol

from jmer.batch import Batch

JMER, PYTORCH, COMPILED = "jmer", "PyTorch", "torch.compile"


class Side(Protocol):
    """A model that can be trained. Calls may return before their work is done; `wait` waits for it.

    Attributes:
      name: `JMER`, `PYTORCH` or `COMPILED`.
    """

    name: str

    def place(self, batch: Batch) -> Any:
        """Brings a batch of NumPy arrays to the device; what it returns is what the others take."""

    def train(self, batch: Any) -> None:
        """Takes one training step."""

    def infer(self, batch: Any) -> None:
        """Predicts a batch."""

    def loss(self, batch: Any) -> float:
        """Returns the loss on a batch without dropout."""

    def wait(self) -> None:
        """Waits until the device has done all that it was told."""
