"""Layers of GRUs and LSTMs against PyTorch's, over whole conversations and over each party's utterances alone."""

import functools

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, float64, normal

from experiments.benchmarks.plain_torch.convert import set_parameter
from jmer.layers.party import party_order
from jmer.layers.recurrent import StackedRNN
from jmer.segments import Segments

B, T, D, H, LAYERS = 3, 6, 4, 3, 2
# Real positions at the end of a row, inside it, and nowhere.
MASK = np.array([[True] * 6, [True, True, False, True, False, False], [False] * 6])
# Conversations of 2, 1 and 3 utterances in the first row.
SEGMENTS = Segments(np.array([[0, 0, 1, 2, 2, 2], [0] * 6, [0] * 6], np.int32), 3)
SPEAKERS = np.array([[0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 1], [-1] * 6], np.int32)


def torch_network(cell, params):
    made = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](D, H, LAYERS, bidirectional=True, batch_first=True)
    made = made.double()
    names = {"input_kernel": "weight_ih", "state_kernel": "weight_hh", "input_bias": "bias_ih", "state_bias": "bias_hh"}
    for layer in range(LAYERS):
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            for ours, theirs in names.items():
                value = np.float64(params[f"layer_{layer}_{direction}_{ours}"]).T
                set_parameter(getattr(made, f"{theirs}_l{layer}{suffix}"), value)
    return made


def expected_step(cell, params, x, groups, weights):
    """The outputs and the gradient for `x`, each group of positions (row, columns) read alone by PyTorch."""
    network, x = torch_network(cell, params), torch.tensor(x, requires_grad=True)
    out = torch.zeros(B, T, 2 * H, dtype=torch.float64)
    for row, columns in groups:
        out[row, columns] = network(x[row, columns][None])[0][0]
    (out * torch.tensor(weights)).sum().backward()
    return out.detach().numpy(), x.grad.numpy(), dict(network.named_parameters())


CONVERSATIONS = [(0, [0, 1]), (0, [2]), (0, [3, 4, 5]), (1, [0, 1, 3])]
PARTIES = [(0, [0]), (0, [1]), (0, [2]), (0, [3, 5]), (0, [4]), (1, [0, 3]), (1, [1])]


@functools.cache
def parameters(cell):
    return float64(draw_parameters(StackedRNN(2 * H, cell=cell, num_layers=LAYERS), normal(0, B, T, D), MASK))


def step(cell, run, x, weights, **options):
    """Outputs, and gradients of their weighted sum for the parameters and for `x`, in float64."""
    with jax.enable_x64(True):

        def objective(params, x):
            out = run(StackedRNN(2 * H, cell=cell, num_layers=LAYERS, **options), params, x)
            return (out * weights).sum(), out

        return jax.device_get(jax.jit(jax.grad(objective, (0, 1), has_aux=True))(parameters(cell), x))


def whole(network, params, x):
    return network.apply({"params": params}, x, MASK, segments=SEGMENTS)


def by_party(network, params, x):
    order = party_order(SPEAKERS, MASK, segments=SEGMENTS)
    states = network.apply({"params": params}, order.sort(x), order.sort(MASK), segments=order.segments)
    return order.unsort(states)


@pytest.mark.parametrize("custom_derivative", [True, False])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(("run", "groups"), [(whole, CONVERSATIONS), (by_party, PARTIES)], ids=["whole", "by_party"])
def test_outputs_and_gradients_are_those_of_pytorch(cell, run, groups, custom_derivative):
    x, weights = np.float64(normal(1, B, T, D)), np.float64(normal(2, B, T, 2 * H))
    (params_bar, x_bar), out = step(cell, run, x, weights, custom_derivative=custom_derivative)
    expected, expected_x_bar, expected_bar = expected_step(cell, parameters(cell), x, groups, weights)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(x_bar, expected_x_bar, rtol=1e-10, atol=1e-12)
    found = dict(torch_network(cell, params_bar).named_parameters())
    for name, parameter in expected_bar.items():
        np.testing.assert_allclose(found[name].detach(), parameter.grad, rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_order_of_parties_keeps_time_within_a_party_and_puts_padding_last():
    order = party_order(SPEAKERS, MASK, segments=SEGMENTS)
    np.testing.assert_array_equal(order.order[0], [0, 1, 2, 3, 5, 4])
    np.testing.assert_array_equal(order.order[1], [0, 3, 1, 2, 4, 5])
    np.testing.assert_array_equal(order.segments.ids[:2], [[0, 1, 2, 3, 3, 4], [0, 0, 1, 2, 2, 2]])
    x = normal(3, B, T, 2)
    np.testing.assert_array_equal(order.unsort(order.sort(x)), x)


def test_dropout_falls_between_layers_alone():
    x, key = normal(4, B, T, D), {"dropout": jax.random.key(0)}
    for layers, changed in ((1, False), (2, True)):
        network = StackedRNN(2 * H, num_layers=layers, dropout_rate=0.5)
        variables = {"params": draw_parameters(network, x, MASK)}
        dropped = network.apply(variables, x, MASK, train=True, rngs=key)
        assert np.array_equal(dropped, network.apply(variables, x, MASK)) != changed
        # The last layer's output has no zeros, as it would after dropout.
        assert np.all(np.asarray(dropped)[MASK] != 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cell": "elman"}, r"^cell: expected one of gru, lstm, got 'elman'"), ({"num_layers": 0}, "num_layers")],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StackedRNN(2 * H, **options).init(jax.random.key(0), normal(0, B, T, D), MASK)
