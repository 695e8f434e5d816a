"""Options that name the layers of an encoder."""

import numpy as np
import pytest

from jmer.errors import UserError
from jmer.extract.layers import parse_layers

STATES = [np.full((2, 3), float(number)) for number in range(5)]


@pytest.mark.parametrize(
    ("given", "columns"),
    [("-1", [4]), ("0", [0]), ("2", [2]), ("1+3", [1, 3]), ("-1+-2", [4, 3]), ("mean:1", [4]), ("mean:4", [2.5])],
)
def test_layers_are_chosen(given, columns):
    layers = parse_layers(given)
    expected = np.tile(np.repeat(columns, 3), (2, 1))
    np.testing.assert_array_equal(layers.of(STATES, np), expected)
    assert layers.width(3) == expected.shape[-1]


@pytest.mark.parametrize("given", ["", "last", "1,2", "1+", "+1", "mean:", "mean:0", "mean:-1", "1.5", "--1", "9999"])
def test_others_are_refused(given):
    with pytest.raises(ValueError, match="expected a number such as -1, several such as 9\\+10, or mean:4"):
        parse_layers(given)


@pytest.mark.parametrize("given", ["5", "-6", "1+5+-9", "mean:6"])
def test_a_layer_that_an_encoder_does_not_have_gets_one_line(given):
    with pytest.raises(UserError, match=r"layer (5|-6) of net does not exist: it has layers 0 to 4, or -5 to -1"):
        parse_layers(given).counted(5, "net")


@pytest.mark.parametrize(
    ("given", "same"), [("-1", "4"), ("4+-5", "4+0"), ("mean:4", "mean:4"), ("mean:1", "4")], ids=str
)
def test_two_ways_to_say_the_same_are_one(given, same):
    layers = parse_layers(given).counted(5, "net")
    assert str(layers) == same
    np.testing.assert_array_equal(layers.of(STATES, np), parse_layers(given).of(STATES, np))
