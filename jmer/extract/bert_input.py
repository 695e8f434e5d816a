"""What a BERT or RoBERTa network reads of an utterance: word pieces of it, of the turns before it and of who speaks."""

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jmer.errors import UserError
from jmer.extract.bert_folder import Architecture
from jmer.extract.network_folders import check_kind
from jmer.extract.protocol import Missing, Turn, Words


class Tokens(NamedTuple):
    """The input of the network.

    Attributes:
      ids: int32 `[N]`, word pieces and special tokens.
      types: int32 `[N]`, token types.
      own: bool `[N]`, False for the word pieces of turns before the utterance.
      cut: whether the utterance's end is left out.
    """

    ids: np.ndarray
    types: np.ndarray
    own: np.ndarray
    cut: bool = False


class Reader(NamedTuple):
    """Makes the input of utterances.

    Without turns before it, an utterance is `<s> utterance </s>`, in BERT `[CLS] utterance [SEP]`. With them it is the
    second of a pair of texts, as in EmoBERTa (Kim and Vossen 2021): `<s> before </s></s> utterance </s>`, in BERT
    `[CLS] before [SEP] utterance [SEP]` of token types 0 and 1. The turns before it are joined by blanks. If all of it
    is longer than the limit, whole turns are left out, the oldest first, and at last the end of the utterance.

    Attributes:
      tokenizer: of the `tokenizers` package, with the limit.
      types: whether the network has token types.
      speakers: whether each turn begins with "NAME: ".
      ascii: whether characters beyond ASCII are left out, as in COSMIC (Ghosal et al. 2020).
    """

    tokenizer: Any
    types: bool
    speakers: bool
    ascii: bool

    def __call__(self, words: Words) -> Tokens | Missing:
        """Returns the input of an utterance."""
        if not self.tokenizer.encode(self._kept(words.turn.text), add_special_tokens=False).ids:
            return Missing("no word pieces in its text")
        encoding = self._encoded([self._said(turn) for turn in words.before], self._said(words.turn))
        types = encoding.type_ids if self.types else np.zeros(len(encoding.ids))
        # The pieces of the first of two texts have sequence number 0, special tokens None.
        sequences = encoding.sequence_ids
        before = [number == 0 for number in sequences] if 1 in sequences else np.zeros(len(sequences), bool)
        cut = bool(encoding.overflowing)
        return Tokens(np.array(encoding.ids, np.int32), np.array(types, np.int32), ~np.array(before, bool), cut)

    def _encoded(self, before: list[str], text: str) -> Any:
        for start in range(len(before)):
            encoding = self.tokenizer.encode(" ".join(before[start:]), text)
            if not encoding.overflowing:
                return encoding
        return self.tokenizer.encode(text)

    def _said(self, turn: Turn) -> str:
        return self._kept(f"{turn.speaker}: {turn.text}" if self.speakers and turn.speaker else turn.text)

    def _kept(self, text: str) -> str:
        return text.encode("ascii", "ignore").decode() if self.ascii else text


def read_tokenizer(tokenizers: ModuleType, path: Path, architecture: Architecture, limit: int) -> Any:
    """Reads tokenizer.json, and makes it cut what is longer than `limit` tokens.

    Raises:
      UserError: if it is damaged, adds no special tokens, or knows pieces that the network does not.
    """
    check_kind(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        # A character that no vocabulary has fails here where the piece for unknown ones is missing.
        tokenizer.encode("\u2603\u10fa", "\u2603\u10fa")
    except Exception as error:  # the package raises no other class
        raise UserError(f"{path} is damaged, or of a newer version of the package tokenizers ({error})") from error
    if not tokenizer.num_special_tokens_to_add(is_pair=True):
        raise UserError(f"{path} adds no special tokens such as [CLS] or <s>: save the tokenizer again by transformers")
    if (largest := max(tokenizer.get_vocab().values(), default=0)) >= architecture.vocabulary:
        raise UserError(
            f"{path} has word pieces up to number {largest}, the network {architecture.vocabulary} of them: get the "
            "tokenizer of this network"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return tokenizer
