"""DialogueRNN (Majumder et al., 2019) in PyTorch: step by step, every party updated, as in its authors' code."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_gru, load_linear, set_parameter
from jmer.batch import Batch
from jmer.modalities import MODALITIES


class ContextAttention(nn.Module):
    """What was said before, weighed by its fit to an utterance (`general`) or by itself alone (`simple`)."""

    def __init__(self, kind: str, width: int, d_g: int):
        super().__init__()
        self.kind = kind
        self.score = nn.Linear(d_g, 1, bias=False) if kind == "simple" else nn.Linear(width, d_g, bias=False)

    def forward(self, history: Tensor, u: Tensor) -> Tensor:
        """Maps `history` `[t, B, D_g]` and `u` `[B, D]` to `[B, D_g]`."""
        if self.kind == "simple":
            weights = F.softmax(self.score(history), dim=0).permute(1, 2, 0)
        else:
            weights = F.softmax(torch.bmm(self.score(u).unsqueeze(1), history.permute(1, 2, 0)), dim=2)
        return torch.bmm(weights, history.transpose(0, 1)).squeeze(1)


class Cell(nn.Module):
    """One step: the global state, an update of every party, of which the speaker's is kept, and the emotion."""

    def __init__(self, width: int, d_g: int, d_p: int, d_e: int, attention: str, dropout_rate: float):
        super().__init__()
        self.global_gru = nn.GRUCell(width + d_p, d_g)
        self.party_gru = nn.GRUCell(width + d_g, d_p)
        self.emotion_gru = nn.GRUCell(d_p, d_e)
        self.attention = ContextAttention(attention, width, d_g)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(
        self, u: Tensor, turn: Tensor, history: Tensor, parties: Tensor, emotion: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the next global state, parties and emotion.

        Args:
          u: `[B, D]`.
          turn: `[B, P]`, 1 for who speaks; all zero where padded.
          history: `[t, B, D_g]`, the global states before.
          parties: `[B, P, D_p]`.
          emotion: `[B, D_e]`.
        """
        speaker = turn.argmax(1).tolist()
        before = history[-1] if len(history) else u.new_zeros(len(u), self.global_gru.hidden_size)
        state = self.dropout(self.global_gru(torch.cat([u, _select(parties, speaker)], dim=1), before))
        context = self.attention(history, u) if len(history) else torch.zeros_like(state)
        inputs = torch.cat([u, context], dim=1).unsqueeze(1).expand(-1, turn.shape[1], -1).flatten(0, 1)
        updated = self.dropout(self.party_gru(inputs, parties.flatten(0, 1)).view_as(parties))
        speaks = turn.unsqueeze(2)
        parties = parties * (1 - speaks) + updated * speaks
        return state, parties, self.dropout(self.emotion_gru(_select(parties, speaker), emotion))


def _select(parties: Tensor, speaker: Sequence[int]) -> Tensor:
    """Returns each row's speaker, of `[B, P, D]`, row by row."""
    return torch.stack([row[i] for row, i in zip(parties, speaker, strict=True)])


class Recurrence(nn.Module):
    """The cell over all steps, one after the other."""

    def __init__(self, width: int, d_g: int, d_p: int, d_e: int, attention: str, dropout_rate: float):
        super().__init__()
        self.sizes = d_g, d_p, d_e
        self.cell = Cell(width, d_g, d_p, d_e, attention, dropout_rate)

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """Maps `x` `[T, B, D]` and `turns` `[T, B, P]` to emotions `[T, B, D_e]`."""
        _, rows, count = turns.shape
        history, parties, emotion = (
            x.new_zeros(shape)
            for shape in ((0, rows, self.sizes[0]), (rows, count, self.sizes[1]), (rows, self.sizes[2]))
        )
        emotions = x.new_zeros(0, rows, self.sizes[2])
        for u, turn in zip(x, turns, strict=True):
            state, parties, emotion = self.cell(u, turn, history, parties, emotion)
            history = torch.cat([history, state.unsqueeze(0)])
            emotions = torch.cat([emotions, emotion.unsqueeze(0)])
        return emotions


def turns_of(speakers: Tensor, mask: Tensor, parties: int) -> Tensor:
    """Returns who speaks, one-hot `[T, B, P]` in float32, zero where padded; further parties count as the last."""
    return (F.one_hot(speakers.clamp(0, parties - 1).long(), parties) * mask.unsqueeze(2)).transpose(0, 1).float()


def reversed_in_time(x: Tensor, mask: Tensor) -> Tensor:
    """Reverses each conversation of `x` `[T, B, D]` within its length, one by one; padding becomes zero."""
    turned = [row[:n].flip(0) for row, n in zip(x.transpose(0, 1), mask.sum(1).tolist(), strict=True)]
    turned = nn.utils.rnn.pad_sequence(turned)
    return F.pad(turned, (0, 0, 0, 0, 0, len(x) - len(turned)))


class EmotionAttention(nn.Module):
    """Attention of each utterance over the conversation's emotions, one utterance at a time."""

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Linear(width, width)

    def forward(self, emotions: Tensor, mask: Tensor) -> Tensor:
        """Maps `emotions` `[T, B, W]`, `mask` `[B, T]`, to the same shape."""
        memory, read = emotions.permute(1, 2, 0), []
        for emotion in emotions:
            scores = torch.bmm(self.query(emotion).unsqueeze(1), memory).masked_fill(~mask.unsqueeze(1), -1e30)
            read.append(torch.bmm(F.softmax(scores, dim=2), emotions.transpose(0, 1)).squeeze(1))
        return torch.stack(read)


class DialogueRNN(nn.Module):
    """The network of `jmer.models.dialoguernn.DialogueRNN` with its default options.

    Args:
      widths: modality -> width of its features, of the modalities that are read.
      num_classes, d_g, d_p, d_e, d_h, speakers, recurrent_dropout_rate, emotion_dropout_rate, dropout_rate: see
        `jmer.models.dialoguernn.DialogueRNN`; `speakers` are the parties that are updated.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_g: int = 150,
        d_p: int = 150,
        d_e: int = 100,
        d_h: int = 100,
        speakers: int = 2,
        recurrent_dropout_rate: float = 0.1,
        emotion_dropout_rate: float = 0.25,
        dropout_rate: float = 0.1,
    ):
        super().__init__()
        self.modalities = [m for m in MODALITIES if m in widths]
        self.speakers = speakers
        sizes = sum(widths.values()), d_g, d_p, d_e, "general", recurrent_dropout_rate
        self.ahead, self.back = Recurrence(*sizes), Recurrence(*sizes)
        self.emotion_dropout = nn.Dropout(emotion_dropout_rate)
        self.attention = EmotionAttention(2 * d_e)
        self.hidden = nn.Linear(2 * d_e, 2 * d_h)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(2 * d_h, num_classes)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        x = torch.cat([inputs(batch, m) for m in self.modalities], dim=2).transpose(0, 1)
        turns = turns_of(batch.speakers, batch.mask, self.speakers).to(x.dtype)
        ahead = self.emotion_dropout(self.ahead(x, turns))
        back = self.back(reversed_in_time(x, batch.mask), reversed_in_time(turns, batch.mask))
        back = self.emotion_dropout(reversed_in_time(back, batch.mask))
        emotions = self.attention(torch.cat([ahead, back], dim=2), batch.mask)
        hidden = self.dropout(F.relu(self.hidden(emotions)))
        return ClassifierOutput(self.classifier(hidden).transpose(0, 1))


def load_recurrence(recurrence: Recurrence, params: Mapping[str, Any], name: str) -> None:
    """Copies the parameters of one recurrence of a `jmer.layers.DialogueRNNs`."""
    cell = recurrence.cell
    for gru, of_jmer in ((cell.global_gru, "global"), (cell.party_gru, "party"), (cell.emotion_gru, "emotion")):
        load_gru(gru, params, f"{name}_{of_jmer}")
    set_parameter(cell.attention.score.weight, np.asarray(params[f"{name}_attention_kernel"]).T)


def load_parameters(module: DialogueRNN, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.dialoguernn.DialogueRNN`."""
    load_recurrence(module.ahead, params["recurrence"], "forward")
    load_recurrence(module.back, params["recurrence"], "backward")
    load_linear(module.attention.query, params["emotion_attention"])
    load_linear(module.hidden, params["hidden"])
    load_linear(module.classifier, params["classifier"])
