"""Features of sound by wav2vec 2.0, HuBERT, WavLM and networks like them, through transformers and PyTorch."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jmer.errors import UserError
from jmer.extract.layers import Layers, parse_layers
from jmer.extract.network_folders import check_folder, check_kind, read_config, whole_number
from jmer.extract.protocol import RATE, Features, SoundExtractor
from jmer.extract.torch_threads import one_thread

FAMILIES = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "data2vec-audio",
    "unispeech",
    "unispeech-sat",
    "wav2vec2-conformer",
)
"""Architectures (`model_type`) that take samples and have a layer after each block."""

_WEIGHTS = ("model.safetensors", "model*.safetensors*", "pytorch_model.bin", "pytorch_model*.bin*")
"""Patterns of the files of weights; the first one that there are files of counts, as in transformers."""
_FOR_TRAINING = {"masked_spec_embed"}
"""Tensors that features do not depend on: what is put in place of masked frames."""


class _Loaded(NamedTuple):
    torch: ModuleType
    network: Any
    reader: Any


@dataclasses.dataclass(frozen=True)
class Speech(SoundExtractor):
    """Hidden states of a wav2vec 2.0, HuBERT, WavLM or similar network, from a folder that transformers saved.

    Nothing is downloaded. The samples are normalised as preprocessor_config.json says. One utterance is given at a
    time: padding changes what networks with a group norm over time, such as the base models, make of an utterance.
    There are 50 frames per second. One core is used; `--jobs` does several recordings at once.

    Attributes:
      folder: a folder with config.json, preprocessor_config.json and model.safetensors (or pytorch_model.bin, of which
        only tensors are loaded), with or without a head, which is not used.
      layer: a layer such as -1, the last; several beside each other, such as 9+10; mean:4 for the mean of the last 4.
      pooling: mean (over the frames) or none (frames).
    """

    folder: Path
    layer: str = "-1"
    pooling: str = "mean"

    name = "speech"
    licence = "that of the network in the folder"
    extra = "speech"
    imports = ("torch", "transformers")
    packages = ("torch", "transformers")

    def __post_init__(self):
        super().__post_init__()
        parse_layers(self.layer)

    @property
    def width(self) -> int:
        return self._layers.width(whole_number(self._config_file, self._config, "hidden_size"))

    @property
    def shortest(self) -> float:
        return 0.025

    @property
    def files(self) -> Sequence[Path]:
        check_folder(self.folder, ("config.json", "preprocessor_config.json", "model.safetensors"))
        settings = next((path for path in self._settings_files if path.is_file()), self._settings_files[0])
        for path in (self._config_file, settings):
            if not path.is_file():
                raise UserError(f"{self.folder} has no {path.name}: copy it from where the network comes from")
        found = (sorted(self.folder.glob(pattern)) for pattern in _WEIGHTS)
        weights = next((paths for paths in found if paths), None)
        if weights is None:
            raise UserError(f"{self.folder} has no model.safetensors: copy it from where the network comes from")
        return [self._config_file, settings, *weights]

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"layer": str(self._layers)}

    def check(self) -> None:
        super().check()
        _ = self._loaded

    def __call__(self, sound: np.ndarray) -> Features:
        torch, network, reader = self._loaded
        inputs = reader(sound, sampling_rate=RATE, return_tensors="pt")
        with one_thread(torch), torch.inference_mode():
            states = network(**inputs, output_hidden_states=True).hidden_states
            frames = self._layers.of(states, torch)[0].numpy()
        return frames if self.frames else frames.mean(0, dtype=np.float64).astype(np.float32)

    @property
    def _config_file(self) -> Path:
        return self.folder / "config.json"

    @property
    def _settings_files(self) -> Sequence[Path]:
        """Where transformers keeps how samples are normalised, in one of them."""
        return [self.folder / "preprocessor_config.json", self.folder / "processor_config.json"]

    @functools.cached_property
    def _config(self) -> dict[str, Any]:
        return read_config(self.files[0], FAMILIES)

    @functools.cached_property
    def _layers(self) -> Layers:
        count = whole_number(self._config_file, self._config, "num_hidden_layers") + 1
        return parse_layers(self.layer).counted(count, self.folder)

    @functools.cached_property
    def _loaded(self) -> _Loaded:
        _, settings, *weights = self.files
        for path in weights:
            check_kind(path, "safetensors", "torch", "torch-legacy", "json")
        check_kind(settings)
        torch, transformers = self.require("torch"), self.require("transformers")
        options = {"local_files_only": True, "trust_remote_code": False}
        with _quiet(transformers):
            try:
                reader = transformers.AutoFeatureExtractor.from_pretrained(self.folder, **options)
                # Tensors of other shapes are reported like missing ones.
                network, report = transformers.AutoModel.from_pretrained(
                    self.folder,
                    **options,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
            except Exception as error:  # transformers, torch and safetensors have no error in common.
                reason = str(error).strip().partition("\n")[0]
                raise UserError(f"{self.folder} cannot be loaded by transformers: {reason}") from error
        reported = report["missing_keys"] | report["mismatched_keys"]
        names = {one if isinstance(one, str) else one[0] for one in reported}
        if wrong := sorted(names - _FOR_TRAINING):
            raise UserError(
                f"{self.folder}: config.json expects {len(wrong)} tensors that {weights[0].name} lacks or has in "
                f"another shape, the first {wrong[0]}: get both files of one network"
            )
        if reader.sampling_rate != RATE:
            raise UserError(
                f"{settings} is of a network for {reader.sampling_rate} samples per second: expected {RATE}"
            )
        return _Loaded(torch, network.eval(), reader)


@contextlib.contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Keeps transformers from printing progress and reports while it loads a network."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
