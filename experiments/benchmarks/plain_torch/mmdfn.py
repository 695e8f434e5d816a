"""MM-DFN (Hu et al., 2022) in PyTorch: party by party, and one dense matrix for a batch, as in its authors' code."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_linear, load_stacked
from experiments.benchmarks.plain_torch.multimodal_graph import (
    DeepGraphNetwork,
    load_network,
    run_real,
)
from jmer.batch import Batch
from jmer.modalities import MODALITIES


class MMDFN(nn.Module):
    """The network of `jmer.models.mmdfn.MMDFN` with its default options.

    Args:
      widths: modality -> width of its features; text is one of them, and no utterance lacks it.
      num_classes, d_rnn, d_graph, graph_layers, alpha, lamda, party_weights, dropout_rate: see
        `jmer.models.mmdfn.MMDFN`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_rnn: int = 100,
        d_graph: int = 100,
        graph_layers: int = 16,
        alpha: float = 0.2,
        lamda: float = 0.5,
        party_weights: Sequence[float] = (1.0, 3.0, 0.0),
        dropout_rate: float = 0.4,
    ):
        super().__init__()
        width = 2 * d_rnn
        self.party_weights = dict(zip(MODALITIES, party_weights, strict=True))
        self.inputs = nn.ModuleDict({m: nn.Linear(widths[m], width) for m in MODALITIES if m in widths})
        self.context = nn.GRU(width, d_rnn, 2, batch_first=True, bidirectional=True, dropout=dropout_rate)
        self.party = nn.GRU(width, d_rnn, 2, batch_first=True, bidirectional=True, dropout=dropout_rate)
        self.fusion = DeepGraphNetwork(
            len(widths),
            width,
            num_classes,
            d_graph=d_graph,
            graph_layers=graph_layers,
            alpha=alpha,
            lamda=lamda,
            dropout_rate=dropout_rate,
            dynamic=True,
        )

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        lengths = batch.mask.sum(1)
        mapped = {m: layer(inputs(batch, m)) for m, layer in self.inputs.items()}
        encoded = mapped | {"text": run_real(self.context, mapped["text"], lengths)}
        for m, x in mapped.items():
            there = batch.speakers.masked_fill(~batch.available[m], -1)
            encoded[m] = encoded[m] + self.party_weights[m] * self._parties(x, there)
        return self.fusion(encoded, batch)

    def _parties(self, x: Tensor, speakers: Tensor) -> Tensor:
        """Returns the states of each party's utterances, read alone, at their places in `[B, T, width]`; -1 is none."""
        states = torch.zeros_like(x)
        for party in range(int(speakers.max()) + 1):
            places = [torch.nonzero(row == party)[:, 0] for row in speakers]
            own = x.new_zeros(x.shape)
            for b, at in enumerate(places):
                own[b, : len(at)] = x[b, at]
            found = run_real(self.party, own, torch.tensor([len(at) for at in places]))
            for b, at in enumerate(places):
                states[b, at] = found[b, : len(at)]
        return states


def load_parameters(module: MMDFN, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.mmdfn.MMDFN`."""
    for modality, layer in module.inputs.items():
        load_linear(layer, params[f"input_{modality}"])
    load_stacked(module.context, params["context_text"])
    load_stacked(module.party, params["party"])
    load_network(module.fusion, params["fusion"])
