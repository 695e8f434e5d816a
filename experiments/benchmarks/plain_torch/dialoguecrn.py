"""DialogueCRN (Hu et al., 2021) in PyTorch: parties copied out in loops, one utterance reasoning after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_gru, load_linear
from jmer.batch import Batch
from jmer.modalities import MODALITIES


class PaddedLSTM(nn.Module):
    """A bidirectional LSTM of several layers over padded sequences, which for the way back are turned at their ends."""

    def __init__(self, features: int, hidden: int, layers: int, dropout_rate: float):
        super().__init__()
        widths = [features, *[2 * hidden] * (layers - 1)]
        self.there, self.back = (
            nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in widths) for _ in range(2)
        )
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Maps `x` `[B, T, features]` to `[B, T, 2 hidden]`; padding comes last."""
        for i, (there, back) in enumerate(zip(self.there, self.back, strict=True)):
            x = self.dropout(x) if i else x
            x = torch.cat([there(x)[0], _turned(back(_turned(x, lengths))[0], lengths)], dim=2)
        return x


def _turned(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """Reverses each sequence of `[B, T, D]` within its length."""
    return torch.stack([torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths, strict=True)])


class Reasoning(nn.Module):
    """Questions of one utterance of each conversation, `steps` times, to the bank of the conversation."""

    def __init__(self, width: int, steps: int):
        super().__init__()
        self.steps = steps
        self.lstm = nn.LSTMCell(2 * width, width) if steps else None

    def forward(self, query: Tensor, bank: Tensor, mask: Tensor) -> Tensor:
        """Maps `query` `[B, 2D]` and `bank` `[B, T, D]` with its mask `[B, T]` to the answer `[B, 2D]`."""
        state = None
        for _ in range(self.steps):
            state = self.lstm(query, state)
            scores = (bank * state[0].unsqueeze(1)).sum(2).masked_fill(~mask, -1e30)
            read = (torch.softmax(scores, dim=1).unsqueeze(2) * bank).sum(1)
            query = torch.cat([state[0], read], dim=1)
        return query


class DialogueCRN(nn.Module):
    """The network of `jmer.models.dialoguecrn.DialogueCRN` with LSTMs.

    Args:
      widths: modality -> width of its features; those of `modalities` are read.
      num_classes, modalities, d_h, num_layers, situation_steps, speaker_steps, dropout_rate: see
        `jmer.models.dialoguecrn.DialogueCRN`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        modalities: tuple[str, ...] = ("text",),
        d_h: int = 128,
        num_layers: int = 2,
        situation_steps: int = 3,
        speaker_steps: int = 0,
        dropout_rate: float = 0.2,
    ):
        super().__init__()
        self.modalities = [m for m in MODALITIES if m in modalities]
        width = sum(widths[m] for m in self.modalities)
        self.situation, self.speaker = (PaddedLSTM(width, d_h, num_layers, dropout_rate) for _ in range(2))
        self.query = nn.Linear(2 * d_h, 4 * d_h)
        self.situation_reasoning = Reasoning(2 * d_h, situation_steps)
        self.speaker_reasoning = Reasoning(2 * d_h, speaker_steps)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(8 * d_h, num_classes)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        x = torch.cat([inputs(batch, m) for m in self.modalities], dim=2)
        situation = self.situation(x, batch.mask.sum(1).tolist())
        speaker = self._of_speakers(x, batch)
        answers = [
            torch.stack([reasoning(self.query(bank[:, t]), bank, batch.mask) for t in range(x.shape[1])], dim=1)
            for reasoning, bank in ((self.speaker_reasoning, speaker), (self.situation_reasoning, situation))
        ]
        hidden = self.dropout(F.relu(torch.cat(answers, dim=2)))
        return ClassifierOutput(self.classifier(hidden))

    def _of_speakers(self, x: Tensor, batch: Batch) -> Tensor:
        """Runs the speakers' network over each party in turn, on copies of its utterances alone, `[B, T, D]`."""
        states = x.new_zeros(*x.shape[:2], self.query.in_features)
        for party in range(int(batch.speakers.max()) + 1):
            places = [torch.nonzero(row == party)[:, 0] for row in batch.speakers]
            turns = torch.zeros_like(x)
            for b, own in enumerate(places):
                turns[b, : len(own)] = x[b, own]
            encoded = self.speaker(turns, [len(own) for own in places])
            for b, own in enumerate(places):
                states[b, own] = encoded[b, : len(own)]
        return states


def load_parameters(module: DialogueCRN, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.dialoguecrn.DialogueCRN`."""
    for bank in ("situation", "speaker"):
        network = getattr(module, bank)
        for layer, directions in enumerate(zip(network.there, network.back, strict=True)):
            for direction, cell in zip(("forward", "backward"), directions, strict=True):
                load_gru(cell, params[bank], f"layer_{layer}_{direction}", "_l0")
    for name in ("query", "classifier"):
        load_linear(getattr(module, name), params[name])
    for name in ("situation_reasoning", "speaker_reasoning"):
        reasoning = getattr(module, name)
        if reasoning.steps:
            load_gru(reasoning.lstm, params[name], "lstm")
