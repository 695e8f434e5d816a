"""How many cores PyTorch uses."""

import contextlib
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def one_thread(torch: ModuleType) -> Iterator[None]:
    """Makes PyTorch compute on one core: the last bits of its sums depend on how many share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
