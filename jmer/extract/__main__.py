"""`python -m jmer.extract`: see `jmer.extract.command`."""

from jmer.command import launch
from jmer.extract.command import extract

launch(extract)
