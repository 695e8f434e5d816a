"""DAG-ERC (Shen et al., 2021) in PyTorch: one utterance at a time over all previous states, as in its authors' code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.plain_torch.classification import ClassifierOutput, CrossEntropyLoss, inputs
from experiments.benchmarks.plain_torch.convert import load_gru, load_linear, set_parameter
from jmer.batch import Batch


def speaker_graph(speakers: Tensor, mask: Tensor, window: int = 1) -> tuple[Tensor, Tensor]:
    """Links each utterance to its predecessors back to the speaker's ω-th last utterance, which is included.

    Args:
      speakers: int32 `[B, T]`.
      mask: bool `[B, T]`, True where an utterance is real.
      window: ω.

    Returns:
      adjacency: bool `[B, T, T]`, True at `[b, i, j]` where `j < i` is linked to `i`.
      same_speaker: bool `[B, T, T]`, True where `i` and `j` have one speaker.
    """
    position = torch.arange(speakers.shape[1], device=speakers.device)
    earlier = position[:, None] > position
    same_speaker = speakers.unsqueeze(2) == speakers.unsqueeze(1)
    own = (same_speaker & earlier).int()
    own_later = own.flip(2).cumsum(2).flip(2) - own
    return earlier & (own_later < window) & mask.unsqueeze(2) & mask.unsqueeze(1), same_speaker


class Gather(nn.Module):
    """The message to an utterance: attention over its predecessors, transformed by their relation to the speaker."""

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Linear(2 * width, 1)
        self.same_speaker = nn.Linear(width, width, bias=False)
        self.other_speaker = nn.Linear(width, width, bias=False)

    def forward(self, query: Tensor, states: Tensor, adjacency: Tensor, same_speaker: Tensor) -> Tensor:
        """Maps `query` `[B, H]` and the `states` so far `[B, N, H]`, masks `[B, N]`, to the message `[B, H]`."""
        repeated = query.unsqueeze(1).expand(-1, states.shape[1], -1)
        score = self.score(torch.cat([repeated, states], dim=2)).squeeze(2)
        # Finite, since a padded utterance has no predecessor; its message is arbitrary.
        attention = torch.softmax(score.masked_fill(~adjacency, -1e30), dim=1)
        values = torch.where(same_speaker.unsqueeze(2), self.same_speaker(states), self.other_speaker(states))
        return torch.bmm(attention.unsqueeze(1), values).squeeze(1)


class GraphLayer(nn.Module):
    """One layer: each utterance's state from its input and its predecessors' new states."""

    def __init__(self, width: int):
        super().__init__()
        self.gather = Gather(width)
        self.node = nn.GRUCell(width, width)
        self.context = nn.GRUCell(width, width)

    def forward(self, x: Tensor, adjacency: Tensor, same_speaker: Tensor) -> Tensor:
        """Maps `x` `[B, T, H]` along the graph, `[B, T, T]` each, to `[B, T, H]`."""
        states = self._state(x[:, 0], torch.zeros_like(x[:, 0])).unsqueeze(1)
        for i in range(1, x.shape[1]):
            message = self.gather(x[:, i], states, adjacency[:, i, :i], same_speaker[:, i, :i])
            states = torch.cat([states, self._state(x[:, i], message).unsqueeze(1)], dim=1)
        return states

    def _state(self, x: Tensor, message: Tensor) -> Tensor:
        return self.node(x, message) + self.context(message, x)


class GraphNetwork(nn.Module):
    """DAG-ERC up to the first layer of its multilayer perceptron, on the input and the states of all layers."""

    def __init__(self, features: int, hidden: int, layers: int, width: int):
        super().__init__()
        self.input = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(GraphLayer(hidden) for _ in range(layers))
        self.output = nn.Linear((layers + 1) * hidden + features, width)

    def forward(self, x: Tensor, adjacency: Tensor, same_speaker: Tensor) -> Tensor:
        """Maps `x` `[B, T, features]` along the graph, `[B, T, T]` each, to `[B, T, width]`."""
        states = [F.relu(self.input(x))]
        for layer in self.layers:
            states.append(layer(states[-1], adjacency, same_speaker))
        return F.relu(self.output(torch.cat([*states, x], dim=2)))


def load_graph(network: GraphNetwork, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.layers.dag.DAGEncoder`."""
    load_linear(network.input, params["input"])
    load_linear(network.output, params["output"])
    for i, layer in enumerate(network.layers):
        load_layer(layer, params[f"layer_{i}"])


def load_layer(layer: GraphLayer, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.layers.dag.DAGLayer`."""
    gather = layer.gather
    both = np.concatenate([params["score_query_kernel"], params["score_key_kernel"]])
    set_parameter(gather.score.weight, both.T)
    set_parameter(gather.score.bias, np.reshape(params["score_bias"], 1))
    set_parameter(gather.same_speaker.weight, np.asarray(params["same_speaker_kernel"]).T)
    set_parameter(gather.other_speaker.weight, np.asarray(params["other_speaker_kernel"]).T)
    load_gru(layer.node, params, "node")
    load_gru(layer.context, params, "context")


class DAGERC(nn.Module):
    """The network of `jmer.models.dagerc.DAGERC` with its default options, on text alone.

    Args:
      widths: modality -> width of its features; those of text are read.
      num_classes, d_h, dag_layers, dropout_rate: see `jmer.models.dagerc.DAGERC`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        d_h: int = 300,
        dag_layers: int = 4,
        dropout_rate: float = 0.2,
    ):
        super().__init__()
        self.graph = GraphNetwork(widths["text"], d_h, dag_layers, d_h)
        self.hidden = nn.Linear(d_h, d_h)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(d_h, num_classes)

    def forward(self, batch: Batch) -> ClassifierOutput:
        """Predicts every utterance's emotion; the batch holds tensors."""
        graph = speaker_graph(batch.speakers, batch.mask)
        hidden = F.relu(self.hidden(self.graph(inputs(batch, "text"), *graph)))
        return ClassifierOutput(self.classifier(self.dropout(hidden)))


loss = CrossEntropyLoss()
"""The loss of DAG-ERC."""


def load_parameters(module: DAGERC, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a `jmer.models.dagerc.DAGERC`."""
    load_graph(module.graph, params["graph"])
    load_linear(module.hidden, params["hidden_1"])
    load_linear(module.classifier, params["classifier"])
