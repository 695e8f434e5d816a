"""Features of sound by emotion2vec, through funasr."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jmer.errors import UserError
from jmer.extract.network_folders import check_folder, check_kind
from jmer.extract.protocol import RATE, Features, SoundExtractor
from jmer.extract.torch_threads import one_thread

CONFIG, WEIGHTS = "config.yaml", "model.pt"


@dataclasses.dataclass(frozen=True)
class Emotion2vec(SoundExtractor):
    """The last layer of emotion2vec (Ma et al. 2023), from a folder with its published files.

    Nothing is downloaded. model.pt is a pickle, which can run code when it is loaded: give only one that you trust. An
    export of the network to ONNX (extractor `onnx`) has neither this risk nor funasr's many dependencies. One
    utterance is given at a time, on one core.

    Attributes:
      folder: a folder with config.yaml and model.pt.
      pooling: mean (over the frames: funasr's granularity `utterance`) or none (its `frame`, 50 per second).
    """

    folder: Path
    pooling: str = "mean"

    name = "emotion2vec"
    licence = "that of emotion2vec's weights (funasr's code: MIT)"
    extra = "emotion2vec"
    imports = ("torch", "funasr")
    packages = ("torch", "funasr")

    @property
    def width(self) -> int:
        path = self.files[0]
        check_kind(path)
        try:
            content = yaml.safe_load(path.read_bytes())
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} is damaged ({reason}): get the file again") from error
        sizes = content.get("model_conf") if isinstance(content, dict) else None
        size = sizes.get("embed_dim") if isinstance(sizes, dict) else None
        if type(size) is not int or size < 1:
            raise UserError(f"{path}: embed_dim in model_conf is {size!r}: expected emotion2vec's configuration")
        return size

    @property
    def shortest(self) -> float:
        return 0.025

    @property
    def files(self) -> Sequence[Path]:
        # Of a folder that is not there, funasr would ask a hub.
        check_folder(self.folder, (CONFIG, WEIGHTS))
        for name in (CONFIG, WEIGHTS):
            if not (self.folder / name).is_file():
                raise UserError(f"{self.folder} has no {name}: copy it from where emotion2vec comes from")
        return [self.folder / CONFIG, self.folder / WEIGHTS]

    def check(self) -> None:
        # What funasr prints belongs to no result.
        with contextlib.redirect_stdout(sys.stderr):
            super().check()
            _ = self._model

    def __call__(self, sound: np.ndarray) -> Features:
        with one_thread(self.require("torch")):
            (result,) = self._model.generate(
                sound,
                fs=RATE,
                granularity="frame" if self.frames else "utterance",
                extract_embedding=True,
                output_dir=None,
                disable_pbar=True,
            )
        features = np.asarray(result["feats"], np.float32)
        expected = "[T, D]" if self.frames else "[D]"
        if features.ndim != 1 + self.frames or features.shape[-1] != self.width:
            raise RuntimeError(
                f"funasr returned an array {list(features.shape)}, not {expected} with {self.width} columns"
            )
        return features

    @functools.cached_property
    def _model(self) -> Any:
        check_kind(self.files[1], "torch", "torch-legacy", "pickle")
        torch, funasr = self.require("torch"), self.require("funasr")
        with contextlib.redirect_stdout(sys.stderr), one_thread(torch):
            try:
                return funasr.AutoModel(
                    model=str(self.folder),
                    init_param=str(self.folder / WEIGHTS),
                    device="cpu",
                    ncpu=1,
                    hub="hf",
                    disable_update=True,
                    disable_pbar=True,
                    log_level="ERROR",
                )
            except Exception as error:  # What it raises, it has not declared.
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise UserError(f"{self.folder} cannot be loaded by funasr: {reason}") from error
