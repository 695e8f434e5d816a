"""Options that name the layers of an encoder."""

import numpy as np
import pytest

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
    assert layers.missing(len(STATES)) == []


@pytest.mark.parametrize("given", ["", "last", "1,2", "1+", "+1", "mean:", "mean:0", "mean:-1", "1.5", "--1", "9999"])
def test_others_are_refused(given):
    with pytest.raises(ValueError, match="expected a number such as -1, several such as 9\\+10, or mean:4"):
        parse_layers(given)


@pytest.mark.parametrize(
    ("given", "missing"), [("5", [5]), ("-6", [-6]), ("1+5+-9", [5, -9]), ("mean:6", [-6]), ("4+-5", [])]
)
def test_layers_that_an_encoder_does_not_have_are_found(given, missing):
    assert parse_layers(given).missing(5) == missing
