"""The interface of the sides of the comparison."""

from typing import Any, Protocol

from jmer.batch import Batch

JMER, PYTORCH, COMPILED = "jmer", "PyTorch", "torch.compile"

FLOAT32, TENSORFLOAT32, BFLOAT16 = PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
"""In which both sides multiply, the last one in jmer alone, where its networks compute in it altogether."""


class Side(Protocol):
    """A model that can be trained. Calls may be asynchronous; `wait` waits for them.

    Attributes:
      name: `JMER`, `PYTORCH` or `COMPILED`.
    """

    name: str

    def place(self, batch: Batch) -> Any:
        """Transfers a batch of NumPy arrays to the device, for the other methods."""

    def train(self, batch: Any) -> None:
        """Takes one training step."""

    def infer(self, batch: Any) -> None:
        """Predicts a batch."""

    def loss(self, batch: Any) -> float:
        """Returns the loss on a batch without dropout."""

    def wait(self) -> None:
        """Waits for all asynchronous work."""
