"""Features of sound by any encoder that was exported to ONNX."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jmer.errors import UserError
from jmer.extract.networks import Network, network_files, open_network
from jmer.extract.protocol import RATE, Features, SoundExtractor

_TRIAL_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Onnx(SoundExtractor):
    """What an encoder in an .onnx file makes of the sound, averaged over time.

    It takes the samples of one utterance, `[1, S]` or `[S]`, 16,000 per second, and returns frames `[1, T, D]` or
    `[T, D]`, or one vector `[D]`. One utterance is given at a time and never padded.

    Attributes:
      model: the encoder's file.
      tensor: name of the tensor to take, e.g. of an inner layer; empty = the encoder's output.
      pooling: mean (over time) or none (frames).
      normalise: whether the samples of an utterance are given zero mean and unit variance.
      shortest: seconds of sound that the encoder needs.
    """

    model: Path
    tensor: str = ""
    pooling: str = "mean"
    normalise: bool = False
    shortest: float = 0.025

    name = "onnx"
    licence = "the encoder's own"
    extra = "onnx"
    imports = ("onnxruntime",)

    def __post_init__(self):
        super().__post_init__()
        if self.model.suffix != ".onnx":
            raise ValueError(f"{self.model} is no file of an encoder: expected one in .onnx")
        if not 0 < self.shortest <= _TRIAL_SECONDS:
            raise ValueError(f"shortest is {self.shortest}: expected seconds above 0, at most {_TRIAL_SECONDS}")

    @functools.cached_property
    def width(self) -> int:
        shape = self._network.shape
        if len(shape) not in (1, 2) or shape[-1] is not None or (len(shape) == 2 and shape[0] not in (1, None)):
            raise UserError(
                f"{self.model} takes an array {self._network.shown_shape()}: expected samples of any number, [1, any] "
                f"or [any]: export it with dynamic axes"
            )
        result = self._network.trial([1] * (len(shape) - 1) + [round(_TRIAL_SECONDS * RATE)])
        if not 1 <= result.ndim <= 3 or (result.ndim == 3 and len(result) != 1):
            raise UserError(
                f"{self.model} returns an array {list(result.shape)}: expected frames, [1, T, D] or [T, D], or a "
                f"vector [D]"
            )
        if self.frames and result.ndim == 1:
            raise UserError(f"{self.model} returns a vector, not frames: choose pooling=mean")
        return result.shape[-1]

    @property
    def files(self) -> Sequence[Path]:
        return network_files(self.model)

    def versions(self) -> dict[str, str]:
        return self._network.versions

    def __call__(self, sound: np.ndarray) -> Features:
        samples = sound.astype(np.float32)
        if self.normalise:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(1e-7))
        result = self._network.runs(samples if len(self._network.shape) == 1 else samples[None])
        result = result[0] if result.ndim == 3 else result
        return result if self.frames or result.ndim == 1 else result.mean(axis=0)

    @functools.cached_property
    def _network(self) -> Network:
        return open_network(self.model, self.tensor)
