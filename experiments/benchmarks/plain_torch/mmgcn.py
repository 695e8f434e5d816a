"""MMGCN (Hu et al., 2021) in PyTorch: one dense matrix for all utterances of a batch, as in its authors' code."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, inputs
from experiments.benchmarks.plain_torch.convert import load_linear, load_stacked, set_parameter
from experiments.benchmarks.plain_torch.multimodal_graph import (
    DeepGraphNetwork,
    load_network,
    run_real,
)
from jmer.batch import Batch
from jmer.modalities import MODALITIES


class MMGCN(nn.Module):
    """The network of `jmer.models.mmgcn.MMGCN` with its default options.

    Args:
      widths: modality -> width of its features; text is one of them, and no utterance lacks it.
      num_classes, d_rnn, d_graph, graph_layers, alpha, lamda, speakers, dropout_rate: see `jmer.models.mmgcn.MMGCN`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_rnn: int = 100,
        d_graph: int = 100,
        graph_layers: int = 4,
        alpha: float = 0.1,
        lamda: float = 0.5,
        speakers: int = 2,
        dropout_rate: float = 0.4,
    ):
        super().__init__()
        width = 2 * d_rnn
        self.inputs = nn.ModuleDict({m: nn.Linear(widths[m], width) for m in MODALITIES if m in widths})
        self.context = nn.LSTM(width, d_rnn, 2, batch_first=True, bidirectional=True, dropout=dropout_rate)
        self.speakers = nn.Embedding(speakers, width)
        self.fusion = DeepGraphNetwork(
            len(widths),
            width,
            num_classes,
            d_graph=d_graph,
            graph_layers=graph_layers,
            alpha=alpha,
            lamda=lamda,
            dropout_rate=dropout_rate,
        )

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        lengths = batch.mask.sum(1)
        encoded = {m: layer(inputs(batch, m)) for m, layer in self.inputs.items()}
        speakers = self.speakers(batch.speakers.clamp(0, self.speakers.num_embeddings - 1))
        encoded["text"] = run_real(self.context, encoded["text"], lengths) + speakers
        return self.fusion(encoded, batch)


def load_parameters(module: MMGCN, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.mmgcn.MMGCN`."""
    for modality, layer in module.inputs.items():
        load_linear(layer, params[f"input_{modality}"])
    load_stacked(module.context, params["context_text"])
    set_parameter(module.speakers.weight, params["speaker_embedding"]["embedding"])
    load_network(module.fusion, params["fusion"])
