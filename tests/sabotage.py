"""Runs `jmer.main` and brings it down at a chosen point: python sabotage.py FAULT POINT -- ARGUMENTS.

POINT is either how many training steps are counted before the fault, or a JSON list of [event, fragment]: Python audit
events, to come one after the other, each with the fragment in its arguments; at the last one the process gets FAULT, a
signal or an exception by its name.
"""

import json
import os
import signal
import sys

from jmer.command import exit_status
from jmer.errors import UserError
from jmer.main import main
from jmer.training import execution, progress

FAULTS = {"UserError": UserError, "MemoryError": MemoryError, "KeyError": KeyError}


def strike(fault):
    if fault not in FAULTS:
        os.kill(os.getpid(), signal.Signals[fault])
    else:
        raise FAULTS[fault]("injected")


def strike_after_steps(count, fault):
    def count_step(*arguments):
        nonlocal count
        count -= 1
        if not count:
            strike(fault)
        return original(*arguments)

    # One for steps that are counted one by one, the other for those of a whole epoch.
    original = progress.count_step
    execution.count_step = progress.count_step = count_step


def strike_at_events(points, fault):
    def hook(event, arguments):
        if points and event == points[0][0] and points[0][1] in str(arguments):
            points.pop(0)
            if not points:
                strike(fault)

    sys.addaudithook(hook)


if __name__ == "__main__":
    fault, point = sys.argv[1], json.loads(sys.argv[2])
    (strike_at_events if isinstance(point, list) else strike_after_steps)(point, fault)
    sys.exit(exit_status(main, sys.argv[sys.argv.index("--") + 1 :]))
