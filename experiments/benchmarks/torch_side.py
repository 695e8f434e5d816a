"""PyTorch's side of the comparison: the plain networks, with jmer's configuration and its parameters."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from experiments.benchmarks.cases import Case
from experiments.benchmarks.plain_torch import (
    cogmen,
    concat_mlp,
    dagerc,
    dialoguecrn,
    dialoguegcn,
    dialoguernn,
    graphsmile,
    lfvd,
    lpgnet,
    lsdgnn,
    m2fnet_like,
    m3net,
    mmdfn,
    mmgcn,
    multiemo,
    sdt,
)
from experiments.benchmarks.plain_torch.classification import CrossEntropyLoss, FocalMeanLoss
from experiments.benchmarks.plain_torch.convert import to_torch
from experiments.benchmarks.plain_torch.self_distillation import SelfDistillationLoss
from experiments.benchmarks.side import COMPILED, PYTORCH
from jmer.batch import Batch


class Plain(NamedTuple):
    """A network, its loss `(output, batch) -> (total, terms)`, and a function that copies jmer's variables to it."""

    network: nn.Module
    loss: Callable[[Any, Batch], tuple[Tensor, Mapping[str, Tensor]]]
    load: Callable[[nn.Module, Mapping], None]


class TorchSide:
    """A plain PyTorch model. Calls may be asynchronous; `wait` waits for them.

    Args:
      case: the measured case.
      device: `cpu` or `gpu`.
      variables: jmer's, as initial values; None = PyTorch's own initial values.
      compiled: whether the network is compiled by torch.compile.
    """

    def __init__(self, case: Case, device: str, *, variables: Mapping | None = None, compiled: bool = False):
        self.name = COMPILED if compiled else PYTORCH
        self._device = _torch_device(device)
        network, self._loss, load = _BUILDERS[case.model](case.config, case.widths)
        if variables is not None:
            load(network, variables)
        network.to(self._device)
        self._clip = case.config.optimizer.clip_norm
        self._optimizer = _optimizer(network, case.config.optimizer)
        self._network = torch.compile(network) if compiled else network

    def place(self, batch: Batch) -> Batch:
        """Transfers a batch of NumPy arrays to the device."""
        return jax.tree.map(lambda x: x.to(self._device), to_torch(batch))

    def train(self, batch: Batch) -> None:
        """Takes one training step."""
        self._network.train()
        self._optimizer.zero_grad()
        total, _ = self._loss(self._network(batch), batch)
        total.backward()
        if self._clip:
            nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        self._optimizer.step()

    def infer(self, batch: Batch) -> None:
        """Predicts a batch."""
        self._network.eval()
        with torch.no_grad():
            self._network(batch).logits.softmax(-1)

    def wait(self) -> None:
        """Waits for all asynchronous work."""
        _synchronize(self._device)

    def loss(self, batch: Batch) -> float:
        """Returns the loss on a batch without dropout."""
        self._network.eval()
        with torch.no_grad():
            return self._loss(self._network(batch), batch)[0].item()


def product(size: int, device: str) -> Callable[[], None]:
    """Returns a function that multiplies two float32 matrices of `size` x `size` on `cpu` or `gpu`, and waits."""
    where = _torch_device(device)
    left, right = torch.randn(2, size, size, device=where)

    def multiply() -> None:
        torch.matmul(left, right)
        _synchronize(where)

    return multiply


def _torch_device(device: str) -> torch.device:
    """Returns what PyTorch calls `cpu` or `gpu`."""
    return torch.device("cuda" if device == "gpu" else "cpu")


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _optimizer(network: nn.Module, config: ConfigDict) -> torch.optim.Optimizer:
    rule = {"adam_l2": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "amsgrad": config.amsgrad}
    return rule(network.parameters(), eps=config.epsilon, **options)


def _lfvd(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(
        config.model, "num_classes", "d_r", "d_h", "d_x", "d_z", "dag_layers", "num_heads", "dropout_rate"
    )
    loss = lfvd.LFVDLoss(**_fields(config.loss, "gamma_self", "gamma_full", "gamma_distillation"))
    return Plain(lfvd.LFVD(widths, **options), loss, _only_parameters(lfvd.load_parameters))


def _dagerc(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(config.model, "num_classes", "d_h", "dag_layers", "dropout_rate")
    return Plain(dagerc.DAGERC(widths, **options), dagerc.loss, _only_parameters(dagerc.load_parameters))


def _sdt(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    loss = _self_distillation(config)
    options = _fields(config.model, "num_classes", "d", "num_heads", "speakers", "dropout_rate")
    network = sdt.SDT(widths, loss=loss, learned_gates=config.model.unimodal_gate == "learned", **options)
    return Plain(network, loss, _only_parameters(sdt.load_parameters))


def _lpgnet(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    loss = _self_distillation(config)
    options = _fields(config.model, "num_classes", "d", "dropout_rate")
    return Plain(lpgnet.LPGNet(widths, loss=loss, **options), loss, _with_statistics(lpgnet))


def _concat_mlp(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(config.model, "num_classes", "d_h", "d_f", "dropout_rate")
    load = _only_parameters(concat_mlp.load_parameters)
    return Plain(concat_mlp.ConcatMLP(widths, **options), CrossEntropyLoss(), load)


def _dialoguernn(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    rates = ("recurrent_dropout_rate", "emotion_dropout_rate", "dropout_rate")
    options = _fields(config.model, "num_classes", "d_g", "d_p", "d_e", "d_h", "speakers", *rates)
    loss = CrossEntropyLoss(tuple(config.loss.class_weight_values))
    return Plain(dialoguernn.DialogueRNN(widths, **options), loss, _only_parameters(dialoguernn.load_parameters))


def _multiemo(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    sizes = ("num_classes", "d", "bidirectional", "text_context", "num_layers", "num_heads", "d_ff", "d_h")
    lambdas = ("lambda_correlation", "lambda_contrast", "lambda_classification")
    weights = _fields(config.loss, *lambdas, "alpha", "focal_gamma", "tau")
    loss = multiemo.MultiEMOLoss(**weights, class_weights=tuple(config.loss.class_weight_values))
    # As many parties as the corpora have in a conversation.
    speakers = {"synthetic-iemocap6": 2, "synthetic-meld": 9}[config.data.path]
    network = multiemo.MultiEMO(widths, speakers, **_fields(config.model, *sizes))
    return Plain(network, loss, _only_parameters(multiemo.load_parameters))


def _dialoguegcn(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    sizes = ("d_rnn", "num_bases", "d_h1", "d_h2", "d_hidden", "window_past", "window_future", "speakers")
    network = dialoguegcn.DialogueGCN(widths, **_fields(config.model, "num_classes", *sizes, "dropout_rate"))
    loss = CrossEntropyLoss(tuple(config.loss.class_weight_values))
    return Plain(network, loss, _only_parameters(dialoguegcn.load_parameters))


def _cogmen(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    sizes = (
        "encoder_width",
        "encoder_layers",
        "d_ff",
        "d_h",
        "window_past",
        "window_future",
        "speakers",
        "graph_heads",
    )
    network = cogmen.COGMEN(widths, **_fields(config.model, "num_classes", *sizes, "dropout_rate"))
    return Plain(network, CrossEntropyLoss(), _with_statistics(cogmen))


def _m3net(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(
        config.model,
        *("num_classes", "d_g", "d_q", "rnn_layers", "hyperedge_layers", "gate_layers", "speakers", "dropout_rate"),
    )
    loss = CrossEntropyLoss(tuple(config.loss.class_weight_values))
    return Plain(m3net.M3NET(widths, **options), loss, _with_statistics(m3net))


def _graphsmile(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(
        config.model,
        *("num_classes", "d_h", "window_past", "window_future", "pair_layers", "shift_window", "dropout_rate"),
    )
    weights = _fields(config.loss, "lambda_emotion", "lambda_sentiment", "lambda_shift", "emotion_sentiments")
    loss = graphsmile.GraphSmileLoss(**weights)
    return Plain(graphsmile.GraphSmile(widths, **options), loss, _with_statistics(graphsmile))


def _mmgcn(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(config.model, "num_classes", "speakers", *_GRAPH_FIELDS)
    loss = CrossEntropyLoss(tuple(config.loss.class_weight_values))
    return Plain(mmgcn.MMGCN(widths, **options), loss, _only_parameters(mmgcn.load_parameters))


def _mmdfn(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(config.model, "num_classes", "party_weights", *_GRAPH_FIELDS)
    loss = FocalMeanLoss(config.loss.focal_gamma, tuple(config.loss.class_weight_values))
    return Plain(mmdfn.MMDFN(widths, **options), loss, _only_parameters(mmdfn.load_parameters))


_GRAPH_FIELDS = ("d_rnn", "d_graph", "graph_layers", "alpha", "lamda", "dropout_rate")


def _lsdgnn(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    options = _fields(config.model, "num_classes", "d_h", "dag_layers", "omega_short", "omega_long", "dropout_rate")
    loss = lsdgnn.LSDGNNLoss(config.loss.beta)
    return Plain(lsdgnn.LSDGNN(widths, **options), loss, _only_parameters(lsdgnn.load_parameters))


def _dialoguecrn(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    sizes = ("d_h", "num_layers", "situation_steps", "speaker_steps")
    options = _fields(config.model, "num_classes", "modalities", *sizes, "dropout_rate")
    loss = FocalMeanLoss(config.loss.focal_gamma, tuple(config.loss.class_weight_values))
    return Plain(dialoguecrn.DialogueCRN(widths, **options), loss, _only_parameters(dialoguecrn.load_parameters))


def _m2fnet_like(config: ConfigDict, widths: Mapping[str, int]) -> Plain:
    sizes = ("d", "encoder_width", "encoder_layers", "d_ff", "num_heads", "fusion_layers")
    network = m2fnet_like.M2FNetLike(widths, **_fields(config.model, "num_classes", *sizes, "dropout_rate"))
    loss = CrossEntropyLoss(tuple(config.loss.class_weight_values))
    return Plain(network, loss, _only_parameters(m2fnet_like.load_parameters))


_BUILDERS = {
    "lfvd": _lfvd,
    "dagerc": _dagerc,
    "sdt": _sdt,
    "lpgnet": _lpgnet,
    "concat_mlp": _concat_mlp,
    "dialoguernn": _dialoguernn,
    "dialoguegcn": _dialoguegcn,
    "cogmen": _cogmen,
    "m3net": _m3net,
    "graphsmile": _graphsmile,
    "mmgcn": _mmgcn,
    "mmdfn": _mmdfn,
    "multiemo": _multiemo,
    "lsdgnn": _lsdgnn,
    "dialoguecrn": _dialoguecrn,
    "m2fnet_like": _m2fnet_like,
}


def _self_distillation(config: ConfigDict) -> SelfDistillationLoss:
    options = _fields(config.loss, "gamma_task", "gamma_hard", "gamma_soft", "tau")
    return SelfDistillationLoss(
        config.model.num_classes, class_weights=tuple(config.loss.class_weight_values), **options
    )


def _only_parameters(load: Callable[[nn.Module, Mapping], None]) -> Callable[[nn.Module, Mapping], None]:
    return lambda network, variables: load(network, variables["params"])


def _with_statistics(module: ModuleType) -> Callable[[nn.Module, Mapping], None]:
    def load(network: nn.Module, variables: Mapping) -> None:
        module.load_parameters(network, variables["params"])
        module.load_statistics(network, variables["batch_stats"])

    return load


def _fields(section: ConfigDict, *names: str) -> dict[str, Any]:
    return {name: section[name] for name in names}
