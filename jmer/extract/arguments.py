"""Flags that extraction and prediction of recordings have in common."""

import argparse
from pathlib import Path

MOST_JOBS = 256


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a manifest, a recording or subtitles are read."""
    parser.add_argument(
        "--subtitles", type=Path, metavar="FILE", help="what is said in a recording (default: the file beside it)"
    )
    parser.add_argument(
        "--speakers",
        type=Path,
        metavar="FILE",
        help="who speaks when, as RTTM or JSON (default: the .rttm file beside the recording, if there is one)",
    )
    parser.add_argument("--encoding", default="utf-8-sig", help="of a manifest (default: UTF-8)")
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="recordings at once (default: %(default)s)")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave rows whose recording cannot be read without its features"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_JOBS:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of processes from 1 to {MOST_JOBS}")
    return int(text)
