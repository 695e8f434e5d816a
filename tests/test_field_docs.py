"""Every field of every configuration is documented, once, where its default is."""

import dataclasses

import pytest

from jmer.config import base_config, flatten
from jmer.docstrings import attribute_docs
from jmer.experiment import experiment_files, get_config
from jmer.field_docs import field_docs
from jmer.models.registry import model_names


@pytest.mark.parametrize("name", [*experiment_files(), *model_names()])
def test_every_field_has_a_line(name):
    config = get_config(name)
    docs = field_docs(config.model.name)
    assert {field for field in flatten(config) if not docs.get(field)} == set()
    assert not [doc for doc in docs.values() if "\n" in doc or doc.startswith("see ") or "the latter" in doc]


def test_the_attributes_of_a_docstring():
    @dataclasses.dataclass
    class Documented:
        """A class.

        Attributes:
          width: of the
            layer: an int.
          first, second: two at once.

          last: after a blank line.

        Not an attribute: this.
        """

    assert attribute_docs(Documented) == {
        "width": "of the layer: an int.",
        "first": "two at once.",
        "second": "two at once.",
        "last": "after a blank line.",
    }
    assert attribute_docs(None) == attribute_docs(base_config) == {}
