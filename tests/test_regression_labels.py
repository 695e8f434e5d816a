"""Regression labels become the classes that their conversion says."""

import numpy as np
import pytest

from jmer.data.readers.regression_labels import CONVERSIONS, to_classes

VALUES = [-3.2, -0.5, -0.0, 0.0, 0.4, 2.5, np.nan]


@pytest.mark.parametrize(
    ("conversion", "classes"),
    [
        ("binary", [0, 0, 1, 1, 1, 1, -1]),
        ("nonzero", [0, 0, -1, -1, 1, 1, -1]),
        ("ternary", [0, 0, 1, 1, 2, 2, -1]),
        ("seven", [0, 3, 3, 3, 3, 5, -1]),
    ],
)
def test_classes(conversion, classes):
    got = to_classes(np.array(VALUES), conversion)
    assert got.tolist() == classes
    assert got.dtype == np.int32
    assert max(classes) < len(CONVERSIONS[conversion].emotions)
