"""Folders with a BERT or RoBERTa network, as `save_pretrained` of transformers writes them: what they say and hold.

    config.json         sizes of the network
    model.safetensors   its weights, which may have a prefix (`bert.`, `roberta.`) and heads, which are not read
    tokenizer.json      how a text becomes word pieces, see `jmer.extract.bert_input`

Pickles (`pytorch_model.bin`) can run code when they are read; they are not.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jmer.errors import UserError
from jmer.extract.network_folders import check_folder, check_kind, read_config, whole_number

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"

PADDING = {"bert": None, "roberta": 1, "xlm-roberta": 1, "camembert": 1}
"""Architecture (`model_type`) -> the id of `<pad>` after which its positions start; None = they start at 0."""
FEWEST_TOKENS, USUAL_TOKENS = 8, 512
"""The smallest limit of an input (the special tokens of a pair of texts, and a few word pieces), and BERT's own."""
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")

_WORDS = "embeddings.word_embeddings.weight"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What config.json says of a network.

    Attributes:
      family: `model_type`, one of `PADDING`.
      depth: number of blocks.
      heads: number of attention heads.
      size: columns of hidden states.
      inner_size: columns between the two products of a block's feed-forward network.
      vocabulary: number of word pieces.
      positions: number of embedded positions.
      first_position: the position of the first token.
      types: number of embedded token types.
      epsilon: of layer normalization.
      activation: one of `ACTIVATIONS`.
    """

    family: str
    depth: int
    heads: int
    size: int
    inner_size: int
    vocabulary: int
    positions: int
    first_position: int
    types: int
    epsilon: float
    activation: str

    @property
    def longest(self) -> int:
        """Tokens of the longest input."""
        return self.positions - self.first_position


class Dense(NamedTuple):
    """An affine map.

    Attributes:
      kernel: `[I, O]`.
      bias: `[O]`.
    """

    kernel: Any
    bias: Any


class Norm(NamedTuple):
    """The parameters of a layer normalization, `[D]` each."""

    scale: Any
    bias: Any


class Block(NamedTuple):
    """The parameters of one block.

    Attributes:
      attention: to queries, keys and values beside each other, `[D, 3 D]`.
      attention_output, attention_norm: after the heads.
      inner, output, output_norm: of the feed-forward network.
    """

    attention: Dense
    attention_output: Dense
    attention_norm: Norm
    inner: Dense
    output: Dense
    output_norm: Norm


class Weights(NamedTuple):
    """The parameters of a network.

    Attributes:
      words, positions, types: embeddings, `[number, D]` each.
      norm: of their sum.
      stack: the blocks.
    """

    words: Any
    positions: Any
    types: Any
    norm: Norm
    stack: tuple[Block, ...]


def required_files(folder: Path) -> tuple[Path, Path, Path]:
    """Returns the paths of the configuration, the weights and the tokenizer.

    Raises:
      UserError: if one is missing, with how to make it.
    """
    check_folder(folder, (CONFIG, WEIGHTS, TOKENIZER))
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder} has no {CONFIG}: name a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}")
    if not (folder / WEIGHTS).exists():
        others = {
            f"{WEIGHTS}.index.json": "has its weights in several files",
            "pytorch_model.bin": "has a pickle, pytorch_model.bin, which is not read since it could run code",
        }
        found = next((what for name, what in others.items() if (folder / name).exists()), f"has no {WEIGHTS}")
        raise UserError(f"{folder} {found}: where you trust it, make {WEIGHTS}: {_saved_again('AutoModel', folder)}")
    if not (folder / TOKENIZER).exists():
        others = {"vocab.json": "vocab.json", "vocab.txt": "vocab.txt", "sentencepiece.bpe.model": "sentencepiece"}
        found = next((f", only {what}" for name, what in others.items() if (folder / name).exists()), "")
        raise UserError(f"{folder} has no {TOKENIZER}{found}: make it: {_saved_again('AutoTokenizer', folder)}")
    return folder / CONFIG, folder / WEIGHTS, folder / TOKENIZER


def _saved_again(auto_class: str, folder: Path) -> str:
    more = ", max_shard_size='99GB'" if auto_class == "AutoModel" else ""
    call = f"{auto_class}.from_pretrained('{folder}').save_pretrained('{folder}'{more})"
    return f'python -c "from transformers import {auto_class}; {call}"'


def read_architecture(folder: Path) -> Architecture:
    """Reads config.json.

    Raises:
      UserError: if it cannot be read, lacks an entry, or is of a network that is not computed here.
    """
    path = required_files(folder)[0]
    content = read_config(path, PADDING)
    family = content["model_type"]
    for field, expected in (("position_embedding_type", "absolute"), ("is_decoder", False)):
        if content.get(field, expected) != expected:
            raise UserError(f"{path}: {field} is {content[field]!r}: only {expected!r} is supported")
    activation = content.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act is {activation!r}: only {', '.join(ACTIVATIONS)} are supported")
    epsilon = content.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise UserError(f"{path}: layer_norm_eps is {epsilon!r}: expected a number between 0 and 1")
    padding = PADDING[family]
    found = Architecture(
        family=family,
        depth=whole_number(path, content, "num_hidden_layers"),
        heads=whole_number(path, content, "num_attention_heads"),
        size=whole_number(path, content, "hidden_size"),
        inner_size=whole_number(path, content, "intermediate_size"),
        vocabulary=whole_number(path, content, "vocab_size"),
        positions=whole_number(path, content, "max_position_embeddings"),
        first_position=0 if padding is None else whole_number(path, content, "pad_token_id", padding, least=0) + 1,
        types=whole_number(path, content, "type_vocab_size", 2),
        epsilon=epsilon,
        activation=activation,
    )
    if found.size % found.heads:
        raise UserError(f"{path}: hidden_size {found.size} is no multiple of num_attention_heads {found.heads}")
    if found.longest < FEWEST_TOKENS:
        raise UserError(f"{path}: max_position_embeddings {found.positions} leaves less than {FEWEST_TOKENS} tokens")
    return found


def check_weights(safetensors: ModuleType, path: Path, architecture: Architecture) -> None:
    """Checks the names, types and shapes of the weights without reading them.

    Raises:
      UserError: if the file is damaged, or not of this network.
    """
    with _opened(safetensors, path) as file:
        _names(path, file, _shapes(architecture, architecture.depth))


def read_weights(safetensors: ModuleType, path: Path, architecture: Architecture, blocks: int) -> Weights:
    """Reads the weights of the first blocks, as float32.

    Raises:
      UserError: if the file is damaged or not of this network, or if a number is not finite.
    """
    # It comes with JAX, and teaches NumPy what bfloat16 is.
    import ml_dtypes  # noqa: F401

    with _opened(safetensors, path) as file:
        names = _names(path, file, _shapes(architecture, blocks))

        def tensor(name: str) -> np.ndarray:
            value = np.asarray(file.get_tensor(names[name]), np.float32)
            if not np.isfinite(value).all():
                raise UserError(f"{path}: '{names[name]}' contains NaN or infinite numbers: get the file again")
            return value

        def dense(*parts: str) -> Dense:
            kernels = [tensor(f"{part}.weight").T for part in parts]
            biases = [tensor(f"{part}.bias") for part in parts]
            return Dense(np.ascontiguousarray(np.concatenate(kernels, 1)), np.concatenate(biases))

        def norm(part: str) -> Norm:
            return Norm(tensor(f"{part}.weight"), tensor(f"{part}.bias"))

        def block(part: str) -> Block:
            return Block(
                dense(*(f"{part}.attention.self.{name}" for name in ("query", "key", "value"))),
                dense(f"{part}.attention.output.dense"),
                norm(f"{part}.attention.output.LayerNorm"),
                dense(f"{part}.intermediate.dense"),
                dense(f"{part}.output.dense"),
                norm(f"{part}.output.LayerNorm"),
            )

        return Weights(
            tensor(_WORDS),
            tensor("embeddings.position_embeddings.weight"),
            tensor("embeddings.token_type_embeddings.weight"),
            norm("embeddings.LayerNorm"),
            tuple(block(f"encoder.layer.{number}") for number in range(blocks)),
        )


@contextlib.contextmanager
def _opened(safetensors: ModuleType, path: Path) -> Iterator[Any]:
    check_kind(path, "safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): get the file again") from error


def _shapes(architecture: Architecture, blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the name, without prefix, and the shape of each tensor of the embeddings and the first blocks."""
    size, inner = architecture.size, architecture.inner_size

    def dense(name: str, outputs: int = size, inputs: int = size) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (outputs, inputs)), (f"{name}.bias", (outputs,)))

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (size,)), (f"{name}.bias", (size,)))

    yield _WORDS, (architecture.vocabulary, size)
    yield "embeddings.position_embeddings.weight", (architecture.positions, size)
    yield "embeddings.token_type_embeddings.weight", (architecture.types, size)
    yield from norm("embeddings.LayerNorm")
    for part in (f"encoder.layer.{number}" for number in range(blocks)):
        for name in ("query", "key", "value"):
            yield from dense(f"{part}.attention.self.{name}")
        yield from dense(f"{part}.attention.output.dense")
        yield from norm(f"{part}.attention.output.LayerNorm")
        yield from dense(f"{part}.intermediate.dense", outputs=inner)
        yield from dense(f"{part}.output.dense", inputs=inner)
        yield from norm(f"{part}.output.LayerNorm")


def _names(path: Path, file: Any, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, str]:
    """Returns name -> that in the file, of tensors with the expected shapes."""
    there = set(file.keys())
    prefixes = sorted(name.removesuffix(_WORDS) for name in there if name.endswith(_WORDS))
    if len(prefixes) != 1:
        found = f"{len(prefixes)} networks" if prefixes else "no network"
        raise UserError(
            f"{path} has {found} of BERT's kind ('...{_WORDS}'): save one, as AutoModel of transformers does"
        )
    names = {}
    for name, shape in shapes:
        # As TensorFlow named them, in files that were converted from its checkpoints.
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        found = prefixes[0] + (old if prefixes[0] + old in there else name)
        if found not in there:
            raise UserError(f"{path} has no '{found}', which {CONFIG} expects: get both files of one network")
        tensor = file.get_slice(found)
        if (kind := tensor.get_dtype()) not in ("F16", "BF16", "F32", "F64"):
            raise UserError(f"{path}: '{found}' is of type {kind}: save the network in float32, not quantized")
        if (given := tuple(tensor.get_shape())) != shape:
            raise UserError(
                f"{path}: '{found}' has shape {list(given)}, {CONFIG} expects {list(shape)}: get both files of one "
                "network"
            )
        names[name] = found
    return names
