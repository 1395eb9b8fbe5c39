"""Run independent pieces of a numba kernel on the threads that numba was given.

The pieces are cut by the data alone, never by the number of threads, and results are put together in the order of the
pieces: one thread and sixteen give the same bits. A pool lives for one call only, so there is nothing to survive a fork
and nothing that two stages in one process could share (numba's own workqueue layer aborts the process in that case).
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba


def _start_numba_threads() -> None:
    """Have numba choose its layer of threads now, not at the first kernel.

    Where that is OpenMP, it sets OpenMP's number of threads, which is torch's as well: a `torch.set_num_threads` of before
    would be forgotten, torch's sums be cut differently, and its threads wait for each other on a busy machine.
    """
    torch = sys.modules.get("torch")
    limit = torch.get_num_threads() if torch else 0
    numba.get_num_threads()
    if torch:
        torch.set_num_threads(limit)


_start_numba_threads()


def map_pieces(function: Callable[[int], Any], count: int) -> list[Any]:
    """Call `function(0) ... function(count - 1)` on `numba.get_num_threads()` threads and return the results in order.

    Args:
        function: must release the GIL in its heavy part (numba with `nogil=True`).
        count: number of pieces.
    """
    workers = min(numba.get_num_threads(), count)
    if workers <= 1:
        return [function(piece) for piece in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, range(count)))
