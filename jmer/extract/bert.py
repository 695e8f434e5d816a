"""Text features by BERT and RoBERTa networks from a folder, in JAX."""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.errors import UserError
from jmer.extract import bert_folder
from jmer.extract.bert_folder import FEWEST_TOKENS, USUAL_TOKENS, Architecture, Weights
from jmer.extract.bert_input import Reader, Tokens, read_tokenizer
from jmer.extract.layers import Layers, parse_layers
from jmer.extract.protocol import Features, Missing, Noted, TextExtractor, Words


@dataclasses.dataclass(frozen=True)
class Bert(TextExtractor):
    """Hidden states of a BERT or RoBERTa network, from a folder that transformers saved.

    An utterance is padded to a power of 2 and computed with a fixed number of others of that length, so that its
    features do not depend on the others.

    Attributes:
      folder: a folder with config.json, model.safetensors and tokenizer.json, of BERT, RoBERTa, XLM-RoBERTa or
        CamemBERT, with or without a head.
      layer: a layer such as -1, the last; several beside each other, such as 9+10; mean:4 for the mean of the last 4.
      pooling: mean (over the tokens), first (`[CLS]` or `<s>`) or none (a frame per token); mean and none leave out the
        word pieces of turns before the utterance.
      normalise: whether features are divided by their Euclidean norm.
      context: how many turns before an utterance the network reads, too.
      speakers: whether each turn begins with the name of its speaker.
      max_tokens: limit of an input, of which whole turns before the utterance are left out, the oldest first, then its
        end; empty = what the network can read, at most 512.
      ascii: whether characters beyond ASCII are left out, as COSMIC does.
    """

    folder: Path
    layer: str = "-1"
    pooling: str = "mean"
    normalise: bool = False
    context: int = 0
    speakers: bool = False
    max_tokens: int | None = None
    ascii: bool = False

    name = "bert"
    poolings = ("mean", "first", "none")
    licence = "that of the network in the folder"
    extra = "text"
    imports = ("safetensors", "tokenizers")

    def __post_init__(self):
        super().__post_init__()
        parse_layers(self.layer)
        if self.context < 0:
            raise ValueError(f"context is {self.context}: expected a number of turns, at least 0")
        if self.max_tokens is not None and self.max_tokens < FEWEST_TOKENS:
            raise ValueError(f"max_tokens is {self.max_tokens}: expected at least {FEWEST_TOKENS}")

    @property
    def width(self) -> int:
        return self._layers.width(self._architecture.size)

    @property
    def files(self) -> Sequence[Path]:
        return bert_folder.required_files(self.folder)

    @property
    def reads_speakers(self) -> bool:
        return self.speakers

    def settings(self) -> dict[str, Any]:
        # Two ways to say the same are one.
        return super().settings() | {"layer": str(self._layers), "max_tokens": self._limit}

    def check(self) -> None:
        super().check()
        _, weights, _ = self.files
        bert_folder.check_weights(self.require("safetensors"), weights, self._architecture)
        _ = self._reader

    def __call__(self, words: Words) -> Features | Noted:
        return self.batch([words])[0]

    def batch(self, several: Sequence[Words]) -> list[Features | Noted]:
        from jmer.extract import bert_encoder

        features: dict[int, Features | Noted] = {}
        by_length = defaultdict(list)
        for number, words in enumerate(several):
            tokens = self._reader(words)
            if isinstance(tokens, Missing):
                features[number] = tokens
            else:
                by_length[bert_encoder.padded_length(len(tokens.ids))].append((number, tokens))
        for length, alike in by_length.items():
            size = bert_encoder.batch_size(length)
            for start in range(0, len(alike), size):
                chosen = alike[start : start + size]
                states = self._states([tokens for _, tokens in chosen], (size, length))
                for (number, tokens), values in zip(chosen, states, strict=False):
                    pooled = self._pooled(values[: len(tokens.ids)], tokens.own)
                    note = f"texts were cut after {self._limit} tokens"
                    features[number] = Noted(pooled, note) if tokens.cut else pooled
        return [features[number] for number in range(len(several))]

    def _states(self, chosen: Sequence[Tokens], shape: tuple[int, int]) -> np.ndarray:
        """Returns the chosen layers `[B, L, D]` of a few inputs, padded to a shape `[B, L]`."""
        import jax.numpy as jnp

        from jmer.extract import bert_encoder

        ids, types = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        counts = np.ones(len(ids), np.int32)
        for row, tokens in enumerate(chosen):
            counts[row] = len(tokens.ids)
            ids[row, : counts[row]], types[row, : counts[row]] = tokens.ids, tokens.types
        states = bert_encoder.hidden_states(self._weights, self._architecture, ids, types, counts)
        return np.asarray(self._layers.of(states, jnp))

    def _pooled(self, states: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Returns the features `[D]` or `[N, D]` of hidden states `[N, D]`."""
        values = states[0 if self.pooling == "first" else own].astype(np.float64)
        if self.pooling == "mean":
            values = values.mean(0)
        if self.normalise:
            values /= np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
        return values.astype(np.float32)

    @functools.cached_property
    def _architecture(self) -> Architecture:
        return bert_folder.read_architecture(self.folder)

    @functools.cached_property
    def _layers(self) -> Layers:
        """The layers, counted from the first."""
        return parse_layers(self.layer).counted(self._architecture.depth + 1, self.folder)

    @functools.cached_property
    def _limit(self) -> int:
        longest = self._architecture.longest
        if self.max_tokens is not None and self.max_tokens > longest:
            raise UserError(f"max_tokens is {self.max_tokens}: the network of {self.folder} reads {longest} at most")
        # Networks that read thousands of tokens take much memory for them.
        return self.max_tokens or min(longest, USUAL_TOKENS)

    @functools.cached_property
    def _reader(self) -> Reader:
        path = self.folder / bert_folder.TOKENIZER
        tokenizer = read_tokenizer(self.require("tokenizers"), path, self._architecture, self._limit)
        return Reader(tokenizer, self._architecture.family == "bert", self.speakers, self.ascii)

    @functools.cached_property
    def _weights(self) -> Weights:
        """The weights that the layers need, on the device."""
        import jax

        _, weights, _ = self.files
        needed = max(self._layers.numbers)
        return jax.device_put(
            bert_folder.read_weights(self.require("safetensors"), weights, self._architecture, needed)
        )
