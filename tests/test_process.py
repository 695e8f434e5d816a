"""Programs keep freed memory, where the C library lets them."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from jmer.process import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is left alone")
def test_large_blocks_are_used_again():
    def second_time(keep):
        program = PROGRAM.format(keep=keep)
        return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)

    assert second_time(keep=False) > 100 > second_time(keep=True)
