"""`python -m jmer.predict RUN INPUT`: the same as `jmer predict`."""

from jmer.cli.program import predict
from jmer.command import launch

if __name__ == "__main__":
    launch(predict)
