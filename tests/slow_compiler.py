"""Runs `jmer.main`, whose training epoch takes longer to compile: python slow_compiler.py SECONDS ARGUMENTS."""

import sys
import time

from jmer.command import exit_status
from jmer.main import main
from jmer.training import execution


def slow(function, seconds):
    def traced(*arguments, **options):
        time.sleep(seconds)
        return function(*arguments, **options)

    return traced


if __name__ == "__main__":
    execution.train_epoch = slow(execution.train_epoch, float(sys.argv[1]))
    sys.exit(exit_status(main, sys.argv[2:]))
