"""Command lines: flags, errors, process set-up and dispatch to the Python API."""
