"""Runs: their directories, training, loading, evaluation and summaries."""

from jmer.runs.cross_validation import CrossValidation
from jmer.runs.directory import RunInUse, is_in_use, lock, read_config, read_facts, seed_folders
from jmer.runs.evaluation import is_reported, write_results
from jmer.runs.group import Ensemble, RunGroup, group_runs
from jmer.runs.resume import check_run
from jmer.runs.run import Run
from jmer.runs.training import train_runs

__all__ = [
    "CrossValidation",
    "Ensemble",
    "Run",
    "RunGroup",
    "RunInUse",
    "check_run",
    "group_runs",
    "is_in_use",
    "is_reported",
    "lock",
    "read_config",
    "read_facts",
    "seed_folders",
    "train_runs",
    "write_results",
]
