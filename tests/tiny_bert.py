"""Folders with small random networks of BERT's kind, written without transformers, and what they compute in float64."""

import json
import math

import numpy as np

SIZE, HEADS, INNER, BLOCKS, POSITIONS = 12, 3, 20, 4, 40
WORDS = ["the", "cat", "dog", "sat", "ran", "joey", "ross", "how", "are", "you", "doing", "am", "fine", "##s", *"?:.,"]
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
EPSILON = 1e-6


def write_folder(folder, family="bert", *, prefix="", config=None, seed=0):
    """Writes a folder; its tensors are returned, without prefix."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, family)
    content = {
        "model_type": family,
        "hidden_size": SIZE,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "vocab_size": vocabulary,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2 if family == "bert" else 1,
        "layer_norm_eps": EPSILON,
        "hidden_act": "gelu",
        "pad_token_id": 0 if family == "bert" else 1,
    }
    (folder / "config.json").write_text(json.dumps(content | (config or {})))
    tensors = random_tensors(vocabulary, content["type_vocab_size"], np.random.default_rng(seed))
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return tensors


def random_tensors(vocabulary, types, rng):
    """Returns name -> float32 tensor, of a size that makes outputs of about 1."""
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, SIZE),
        "embeddings.position_embeddings.weight": (POSITIONS, SIZE),
        "embeddings.token_type_embeddings.weight": (types, SIZE),
    }
    norms = ["embeddings.LayerNorm"]
    for block in (f"encoder.layer.{number}" for number in range(BLOCKS)):
        sizes = {f"attention.self.{name}": (SIZE, SIZE) for name in ("query", "key", "value")}
        sizes |= {"attention.output.dense": (SIZE, SIZE), "intermediate.dense": (INNER, SIZE)}
        for name, shape in (sizes | {"output.dense": (SIZE, INNER)}).items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        norms += [f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"]
    tensors = {name: rng.normal(0, 0.5, shape) for name, shape in shapes.items()}
    for name in norms:
        tensors |= {f"{name}.weight": rng.uniform(0.5, 1.5, SIZE), f"{name}.bias": rng.normal(0, 0.2, SIZE)}
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def write_tokenizer(folder, family):
    """Writes tokenizer.json, with the padding and truncation that published files have; returns its size."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    special = SPECIAL["bert" if family == "bert" else "roberta"]
    if family == "bert":
        words = [*special, *WORDS, *"abcdefghijklmnopqrstuvwxyz"]
        vocabulary = {word: number for number, word in enumerate(words)}
        tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    else:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        merges = [("Ġ", "c"), ("a", "t"), ("Ġc", "at"), ("o", "w")]
        pieces = [*special, *letters, *("".join(pair) for pair in merges)]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(special)
    tokenizer.enable_padding(length=10)
    tokenizer.enable_truncation(10)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


def reference_states(tensors, ids, types, first_position, activation="gelu"):
    """Returns the hidden states `[N, D]` before the first block and after each, in float64."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normalized(x, name):
        variance = x.var(-1, keepdims=True)
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + EPSILON)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def activated(x):
        if activation == "gelu":
            return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        if activation == "relu":
            return np.maximum(x, 0)
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][types]
    x = x + weights["embeddings.position_embeddings.weight"][first_position + np.arange(len(ids))]
    states = [normalized(x, "embeddings.LayerNorm")]
    for block in (f"encoder.layer.{number}" for number in range(BLOCKS)):
        x, heads = states[-1], []
        query, key, value = (dense(x, f"{block}.attention.self.{name}") for name in ("query", "key", "value"))
        for start in range(0, SIZE, SIZE // HEADS):
            head = slice(start, start + SIZE // HEADS)
            scores = np.exp(query[:, head] @ key[:, head].T / math.sqrt(SIZE // HEADS))
            heads.append(scores / scores.sum(-1, keepdims=True) @ value[:, head])
        attended = dense(np.concatenate(heads, -1), f"{block}.attention.output.dense")
        x = normalized(x + attended, f"{block}.attention.output.LayerNorm")
        inner = activated(dense(x, f"{block}.intermediate.dense"))
        states.append(normalized(x + dense(inner, f"{block}.output.dense"), f"{block}.output.LayerNorm"))
    return states
