"""`python -m jmer`: the command `jmer`."""

from jmer.cli.program import run

if __name__ == "__main__":
    run()
